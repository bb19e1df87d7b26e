"""Looks at a cluster's topics, as a member of no group: out come the records that are there at
this moment, and the state that changelogs say. Nothing is committed or written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from pipeline.errors import RetryableError, UsageError
from pipeline.model.record import Record
from pipeline.stream.kafka_changes import Change, read_key, replay
from pipeline.stream.kafka_client import Complaints, refuse, shared_options, unreachable
from pipeline.stream.kafka_records import header_texts, key_text
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.letters import NOWHERE
from pipeline.stream.partitioner import partition_of
from pipeline.topics import DEVICE_STATE, DOWNLINK_STATE

CALL_TIMEOUT_S = 20.0
"""For one question to the cluster, and for the next records of one that does not end."""
READ_RECORDS = 2_000
READ_S = 0.1
CHANGELOGS = {"route": DEVICE_STATE, "downlink": DOWNLINK_STATE}


class KafkaView:
    """One cluster, only looked at. RetryableError: it does not answer. UsageError: it refuses, or
    has no such topic.
    """

    def __init__(self, kafka: KafkaSettings, changelogs: Mapping[str, str] = CHANGELOGS) -> None:
        self.name = f"Kafka at {kafka.bootstrap}"
        self._kafka = kafka
        self._changelogs = changelogs
        self._complaints = Complaints("view")
        self._consumer = Consumer(
            shared_options(kafka, "view")
            | {
                "error_cb": self._complaints,
                "group.id": kafka.group("view"),  # no member of it: nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )

    def records(
        self,
        topic: str,
        *,
        key: str | None = None,
        since_ms: int = 0,
        past: Mapping[int, int] = NOWHERE,
    ) -> Iterator[Record]:
        """Yield what a topic holds at this moment, of one key or of all, from a time on and past
        these offsets (partition → offset); the order of each partition is kept, partitions are
        mixed.
        """
        places = self._places(topic, key)
        if since_ms:
            asked = [TopicPartition(each.topic, each.partition, since_ms) for each in places]
            places = self._ask(self._consumer.offsets_for_times, asked)
        for each in places:
            if each.partition in past and each.offset != OFFSET_END:
                each.offset = max(each.offset, past[each.partition] + 1)
        for found in self._read(places):
            record = Record(
                topic,
                found.partition() or 0,
                found.offset() or 0,
                found.timestamp()[1],
                key_text(found.key()),
                found.value(),
                header_texts(cast("list[tuple[str, bytes]]", found.headers() or [])),
            )
            if record.time_ms >= since_ms and (key is None or record.key == key):
                yield record

    def is_whole(self, topic: str, key: str) -> bool:
        """Return whether nothing of the key's partition was deleted yet."""
        (place,) = self._places(topic, key)
        low, _ = self._ask(self._consumer.get_watermark_offsets, place, CALL_TIMEOUT_S)
        return bool(low == 0)

    def state(self, stage: str, key: str | None = None) -> dict[str, dict[str, Any]]:
        """Return what a stage keeps: key → part → value; of one key, or of all."""
        return replay(self._changes(stage, key))[0]

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]:
        """Return a stage's timers in order: due_ms, key, name, data."""
        return replay(self._changes(stage, None))[1]

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _changes(self, stage: str, key: str | None) -> Iterator[Change]:
        for found in self._read(self._places(self._changelogs[stage], key)):
            written = found.key() or b""
            if key is None or read_key(written)[0] == key:
                yield Change(written, found.value())

    def _places(self, topic: str, key: str | None) -> list[TopicPartition]:
        """Return a topic's partitions, or that of a key, at their beginnings."""
        name = self._kafka.topic(topic)
        found = self._ask(self._consumer.list_topics, name, CALL_TIMEOUT_S).topics[name]
        count = len(found.partitions)
        if found.error is not None or count == 0:
            raise UsageError(f"{self.name} has no topic {name}; see `funicular topics list`")
        chosen: Sequence[int] = range(count) if key is None else [partition_of(key, count)]
        return [TopicPartition(name, partition, OFFSET_BEGINNING) for partition in chosen]

    def _read(self, places: Sequence[TopicPartition]) -> Iterator[Message]:
        """Yield all records from these places on to their ends of now."""
        left = {place.partition for place in places}
        self._consumer.assign(list(places))
        try:
            heard = time.monotonic()
            while left:
                # It waits for that many, or for the time: an end does not cut it short.
                batch = self._consumer.consume(READ_RECORDS, READ_S)
                if batch:
                    heard = time.monotonic()
                elif time.monotonic() - heard > CALL_TIMEOUT_S:
                    last = self._complaints.last
                    why = f"; {last}" if last else ""
                    raise RetryableError(f"{self.name} sends nothing more{why}", code="kafka")
                for found in batch:
                    if self._is_end(found):
                        left.discard(found.partition())
                    elif found.partition() in left:
                        yield found
        finally:
            self._consumer.unassign()

    def _is_end(self, found: Message) -> bool:
        """Return whether this says that a partition ends here; raises what else is wrong."""
        error = found.error()
        if error is None:
            return False
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own
            return True
        refuse(error)
        raise RetryableError(f"{self.name}: {error.str()}", code="kafka")

    def _ask(self, question: Any, *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except KafkaException as error:
            refuse(error.args[0])
            raise unreachable(self._kafka, error, self._complaints) from None
