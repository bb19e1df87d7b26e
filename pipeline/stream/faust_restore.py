"""Reads a changelog from its beginning to its end, for a worker that is new to its partitions.

In: the topic and the partitions. Out: their state, and the offsets up to which it was read. With a
consumer of our own, as Faust's restore drops records now and then, and waits for records where a
changelog ends in a transaction's marker.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.stream.faust_state import PartitionState
from pipeline.stream.kafka_changes import Change
from pipeline.stream.kafka_settings import KafkaSettings

# How often the progress of a restore is told, and how long a read waits for more.
TELL_S = 5.0
POLL_MS = 200

_log = get_logger(__name__)


async def restore(
    settings: KafkaSettings, topic: str, partitions: Collection[int], stall_s: float
) -> dict[int, tuple[PartitionState, int]]:
    """Return the state of each partition as its changelog says it, and the changelog's end.

    ValueError: a record that no engine wrote. RetryableError: nothing came for `stall_s`.
    """
    places = [TopicPartition(topic, number) for number in partitions]
    states = {number: PartitionState() for number in partitions}
    if not places:
        return {}
    consumer = AIOKafkaConsumer(
        **settings.aiokafka(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.partition_fetch_bytes_max,
    )
    await consumer.start()
    try:
        # Before anything is assigned: a question waits behind a fetch that finds nothing.
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        records, moved, told = 0, time.monotonic(), time.monotonic()
        stood = {place: await consumer.position(place) for place in places}
        while left := {place for place in places if stood[place] < ends[place]}:
            found = await consumer.getmany(*left, timeout_ms=POLL_MS)
            for place, batch in found.items():
                changes = [Change(each.key or b"", each.value) for each in batch]
                states[place.partition].apply(changes)
                records += len(batch)
            before, stood = stood, {place: await consumer.position(place) for place in places}
            now = time.monotonic()
            if stood != before:
                moved = now
            elif now - moved > stall_s:
                raise RetryableError(f"The restore of {topic} got nothing for {stall_s:.0f} s")
            if now - told > TELL_S:
                told = now
                waiting = sum(max(0, ends[place] - stood[place]) for place in places)
                _log.info("restoring state", topic=topic, records=records, left=waiting)
    finally:
        await consumer.stop()
    _log.info("restored state", topic=topic, partitions=len(places), records=records)
    return {place.partition: (states[place.partition], ends[place]) for place in places}
