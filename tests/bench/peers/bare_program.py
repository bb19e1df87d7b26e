"""The ceiling of the client: read, parse, write as JSON again, exactly once, and nothing else.

Run: `python bare_program.py FILE`; FILE is JSON: `bootstrap`, `prefix`. It works until SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

RECORDS_MAX = 4_000
POLL_S = 0.1


def step(messages: list[Any], consumer: Consumer, producer: Producer, topic: str) -> None:
    """Write a batch and commit it, with its offsets, in one transaction."""
    producer.begin_transaction()
    following: dict[tuple[str, int], int] = {}
    for message in messages:
        value = orjson.dumps(orjson.loads(message.value()))
        producer.produce(topic, value, message.key(), message.partition())
        following[message.topic(), message.partition()] = message.offset() + 1
    places = [TopicPartition(name, part, offset) for (name, part), offset in following.items()]
    producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata())
    producer.commit_transaction()


def main() -> None:
    """Work until it is told to stop."""
    given = orjson.loads(Path(sys.argv[1]).read_bytes())
    prefix = given["prefix"]
    shared = {"bootstrap.servers": given["bootstrap"], "log_level": 3}
    consumer = Consumer(
        shared
        | {
            "group.id": f"{prefix}job",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = Producer(
        shared
        | {
            "transactional.id": f"{prefix}job",
            "compression.type": "lz4",
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(30)
    consumer.subscribe([f"{prefix}uplink.received"])
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    while going:
        messages = [each for each in consumer.consume(RECORDS_MAX, POLL_S) if not each.error()]
        if messages:
            step(messages, consumer, producer, f"{prefix}events")
    consumer.close()


if __name__ == "__main__":
    main()
