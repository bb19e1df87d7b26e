"""How fast a Faust app runs stages: records of 670 bytes, copied, with and without state.

Run: `python -m tests.bench.faust_engine [--records 30000]`. Prints a table. The broker is that of
the tests, beside it on the same machine.
"""

from __future__ import annotations

import argparse
import time
from uuid import uuid4

from confluent_kafka import Producer

from pipeline.stream.faust import FaustEngine, FaustSettings
from pipeline.stream.kafka_records import header_bytes
from pipeline.stream.kafka_settings import KafkaSettings
from tests.bench.log import Copy, uplinks
from tests.kafka import brokers

PARTITIONS = 4


def measure(stage: Copy, records: int) -> tuple[float, float]:
    """Return records a second, and the seconds until the app was up."""
    cluster = brokers.shared()
    kafka = KafkaSettings(bootstrap=cluster.bootstrap, prefix=f"b{uuid4().hex[:10]}.")
    topics = ["in", "out", *([stage.state_topic] if stage.state_topic else [])]
    cluster.create({kafka.topic(name): PARTITIONS for name in topics})
    producer = Producer(kafka.confluent() | {"partitioner": "murmur2_random", "linger.ms": 50})
    for record in uplinks(records):
        headers = header_bytes(record.headers)
        producer.produce(kafka.topic("in"), record.value, record.key, headers=headers)
        producer.poll(0)
    assert producer.flush(60) == 0
    engine = FaustEngine([stage], FaustSettings(kafka=kafka))
    began = time.perf_counter()
    engine.start()
    while not engine.running:
        time.sleep(0.01)
    up = time.perf_counter()
    assert engine.drain(300)
    took = time.perf_counter() - up
    assert engine.stop()
    return records / took, up - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=30_000)
    given = parser.parse_args()
    for title, stage in (
        ("one stage copies", Copy("one", "in", "out")),
        ("one stage, state a device", Copy("one", "in", "out", counting=True)),
    ):
        rate, up_s = measure(stage, given.records)
        print(f"{title:30} {rate:8,.0f}/s   up in {up_s:.1f} s")  # noqa: T201 - it is its purpose.


if __name__ == "__main__":
    main()
