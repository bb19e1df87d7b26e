"""How fast stages run on Kafka: records of 670 bytes copied exactly once, with and without state.

Run: `python -m tests.bench.kafka_engine [--records 200000] [--partitions 4] [--batch 4000]
[--devices 5000]`. Starts one broker beside it. Prints a table: records a second from the first
commit to the last, milliseconds of CPU of this process for 1,000 records, and what it takes a
second worker elsewhere to restore the state.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog
from confluent_kafka import Producer

from pipeline.metrics import Registry
from pipeline.stream.kafka import KafkaEngine
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from tests.bench.log import HEADERS, VALUE, Copy
from tests.kafka.brokers import Brokers

DRAIN_S = 300.0


def fill(kafka: KafkaSettings, topic: str, records: int, devices: int) -> None:
    """Append the records, from one device after the other."""
    producer = Producer(
        kafka.confluent()
        | {"partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 20}
    )
    headers = list(HEADERS.items())
    for number in range(records):
        while True:
            try:
                producer.produce(
                    kafka.topic(topic), VALUE, f"acme/device-{number % devices:06}", headers=headers
                )
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


class Run:
    """One engine with one stage over a topic that is full."""

    def __init__(self, kafka: KafkaSettings, batch: int, folder: Path) -> None:
        self.kafka = kafka
        self.settings = KafkaEngineSettings(records_max=batch)
        self.folder = folder

    def work(self, stage: Copy, records: int) -> tuple[float, float, float]:
        """Return records a second, CPU milliseconds for 1,000, and the mean batch."""
        metrics = Registry()
        engine = KafkaEngine(self.kafka, [stage], self.settings, metrics, state_folder=self.folder)
        engine.start()
        while not metrics.values("funicular_stage_records_total"):
            time.sleep(0.001)
        done = sum(metrics.values("funicular_stage_records_total").values())
        began, cpu = time.perf_counter(), time.process_time()
        while sum(metrics.values("funicular_stage_records_total").values()) < records:
            time.sleep(0.005)
            if engine.failed.done():
                engine.failed.result()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        transactions = sum(metrics.values("funicular_transactions_total").values())
        engine.stop()
        left = records - done
        return left / took, cpu / left * 1e6, records / transactions

    def restore(self, stage: Copy) -> float:
        """Return the seconds until a worker without any state stands where the first one did."""
        with tempfile.TemporaryDirectory() as folder:
            metrics = Registry()
            engine = KafkaEngine(
                self.kafka, [stage], self.settings, metrics, state_folder=Path(folder)
            )
            began = time.perf_counter()
            engine.start()
            assert engine.drain(DRAIN_S)
            took = time.perf_counter() - began
            engine.stop()
            restored = sum(metrics.values("funicular_restore_records_total").values())
            sys.stdout.write(f"restored {restored:,.0f} changelog records\n")
        return took


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4_000)
    parser.add_argument("--devices", type=int, default=5_000)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with Brokers.start(1) as brokers, tempfile.TemporaryDirectory() as folder:
        kafka = KafkaSettings(bootstrap=brokers.bootstrap)
        brokers.create(dict.fromkeys(("in", "out", "dead.letter"), given.partitions))
        state = {"count.state": given.partitions}
        brokers.create(state, cleanup_policy="compact")
        fill(kafka, "in", given.records, given.devices)
        run = Run(kafka, given.batch, Path(folder))
        sys.stdout.write(f"{'stage':<22}{'records/s':>12}{'CPU ms/1000':>14}{'batch':>10}\n")
        for name, counting in (("copy", False), ("count", True)):
            stage = Copy(name, "in", "out", counting=counting)
            speed, cpu, batch = run.work(stage, given.records)
            words = "copy with state" if counting else "copy"
            sys.stdout.write(f"{words:<22}{speed:>12,.0f}{cpu:>14.1f}{batch:>10,.0f}\n")
        took = run.restore(Copy("count", "in", "out", counting=True))
        sys.stdout.write(f"a worker elsewhere is ready after {took:.2f} s\n")


if __name__ == "__main__":
    main()
