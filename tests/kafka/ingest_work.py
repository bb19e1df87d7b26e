"""What tests of Kafka as a source share: integrations, and records to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from confluent_kafka import Producer

from pipeline.rulebook.book import Integration
from tests.kafka.brokers import Brokers
from tests.real.source_work import integration as any_integration


def integration(
    brokers: Brokers, dialect: str, topics: str, options: Any = None, **connection: Any
) -> Integration:
    given: dict[str, Any] = {"servers": brokers.bootstrap, "topics": [topics], "start": "earliest",
             "session_timeout": 6, **connection}  # fmt: skip
    if connection.get("pattern"):
        del given["topics"]
    given.setdefault("group", f"funicular-{topics}")
    return replace(any_integration(dialect, "kafka", options, **given), name="barn")


def plain(brokers: Brokers, topic: str, **connection: Any) -> Integration:
    """Return an integration of JSON whose device is the record's key."""
    return integration(brokers, "http", topic, {"device_query": "key"}, **connection)


def produce(brokers: Brokers, topic: str, *records: tuple[Any, ...]) -> None:
    """Write records: key, value, and perhaps headers and partition."""
    producer = Producer({"bootstrap.servers": brokers.bootstrap, "log_level": 0,
                         "message.max.bytes": 10_000_000})  # fmt: skip
    for key, value, *more in records:
        headers = more[0] if more else None
        partition = more[1] if len(more) > 1 else -1
        producer.produce(topic, value, key, partition, headers=headers)
    assert producer.flush(30) == 0


def numbered(first: int, count: int, keys: int = 1) -> list[tuple[str, bytes]]:
    return [(f"d{n % keys}", orjson.dumps({"n": n})) for n in range(first, first + count)]
