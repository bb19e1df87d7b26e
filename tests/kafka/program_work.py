"""What those need who run the real program on Kafka: its committed records, and when it is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.process.program import Program

QUIET_S = 8.0  # longer than a killed worker's session, after which others take over


def committed(bootstrap: str, topic: str) -> list[tuple[dict[str, str], bytes]]:
    """Return all committed records of a topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"ledger-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    found = []
    ahead = set(consumer.list_topics(topic).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ahead])
    deadline = time.monotonic() + 60
    while ahead:
        assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
        for record in consumer.consume(1_000, timeout=0.5):
            if record.error() is None:
                headers = {name: value.decode() for name, value in record.headers() or ()}
                found.append((headers, record.value() or b""))
            elif record.error().code() == KafkaError._PARTITION_EOF:
                ahead.discard(record.partition())
    consumer.close()
    return found


async def quiet(programs: Sequence[Program], session: aiohttp.ClientSession) -> None:
    """Wait until no process does anything any more. On Kafka lag is no measure of that: the ends
    of transactions count as records that nobody can read.
    """
    deadline = time.monotonic() + 120
    before, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        assert time.monotonic() < deadline, [program.said() for program in programs]
        await asyncio.sleep(0.5)
        done = sum([await program.done(session) for program in programs])
        if done != before:
            before, since = done, time.monotonic()
