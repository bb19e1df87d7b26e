"""What the tests of the engine on Kafka need: topics, input, workers as processes, and a ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from pipeline.stream.kafka_changes import Change, replay
from pipeline.stream.kafka_records import header_texts, key_text
from pipeline.stream.kafka_settings import KafkaSettings
from tests.contract.kafka_harness import read_all
from tests.kafka.brokers import ROOT, Brokers

WAIT_S = 60.0
KEYS = 40
UNKNOWN = 1_000_000_000


class Flow:
    """The topics of the stage `count`, what was appended, and the workers."""

    def __init__(self, brokers: Brokers, prefix: str, folder: Path, partitions: int = 4) -> None:
        self.brokers = brokers
        self.kafka = KafkaSettings(bootstrap=brokers.bootstrap, prefix=prefix)
        self.folder = folder
        self.partitions = partitions
        self.sent: dict[str, list[str]] = {}
        self.workers: list[subprocess.Popen[str]] = []
        names = ("in", "counted", "fired", "dead.letter")
        brokers.create({prefix + name: partitions for name in names})
        brokers.create({prefix + "count.state": partitions}, cleanup_policy="compact")
        self._producer = Producer(
            self.kafka.confluent()
            | {"partitioner": "murmur2_random", "enable.idempotence": True, "log_level": 0}
        )
        self._number = 0

    def append(self, count: int) -> None:
        """Append records of all keys; return when they are acknowledged."""
        for _ in range(count):
            self._number += 1
            key, value = f"t/device{self._number % KEYS}", str(self._number)
            self._producer.produce(self.kafka.topic("in"), value, key)
            self.sent.setdefault(key, []).append(value)
            self._producer.poll(0)
        assert self._producer.flush(WAIT_S) == 0

    def worker(self, **given: Any) -> subprocess.Popen[str]:
        """Start a worker; return when it runs."""
        given = {"bootstrap": self.kafka.bootstrap, "prefix": self.kafka.prefix,
                 "folder": str(self.folder)} | given  # fmt: skip
        command = [sys.executable, "-m", "tests.kafka.worker_program", json.dumps(given)]
        path = self.folder.parent / f"worker-{len(self.workers)}.log"
        with path.open("w") as log:
            worker = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "running\n"
        return worker

    def stop(self) -> None:
        """End all workers that are still there."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()

    def left(self) -> int:
        """Return how many records the group has not committed; many where nobody can say."""
        consumer = Consumer(self.kafka.confluent() | {"group.id": self.kafka.group("count")})
        topic = self.kafka.topic("in")
        places = [TopicPartition(topic, number) for number in range(self.partitions)]
        try:
            committed = consumer.committed(places, timeout=10)
            ends = [consumer.get_watermark_offsets(place, timeout=10) for place in places]
        except KafkaException:  # a coordinator on its way to another broker
            return UNKNOWN
        finally:
            consumer.close()
        return sum(
            UNKNOWN if end is None else end[1] - max(0, place.offset)
            for end, place in zip(ends, committed, strict=True)
        )

    def wait_done(self) -> None:
        """Return when all is handled and all timers have fired."""
        wait_for(lambda: self.left() == 0)
        count = sum(map(len, self.sent.values()))
        wait_for(lambda: len(read_all(self.kafka, "fired")) >= count)

    def check(self) -> None:
        """Each record had its effect exactly once, in order; state is what the ledger says."""
        found: dict[str, list[str]] = {}
        numbers: dict[str, list[str]] = {}
        for message in read_all(self.kafka, "counted"):
            key = key_text(message.key())
            found.setdefault(key, []).append(message.value().decode())
            numbers.setdefault(key, []).append(header_texts(message.headers())["number"])
        assert found == self.sent
        for key, values in self.sent.items():
            assert numbers[key] == [str(number) for number in range(1, len(values) + 1)]
        fired = [message.value().decode() for message in read_all(self.kafka, "fired")]
        assert sorted(fired) == sorted(value for values in self.sent.values() for value in values)
        state, timers = self.replayed()
        assert state == {key: {"count": len(values)} for key, values in self.sent.items()}
        assert timers == []

    def replayed(self) -> tuple[dict[str, dict[str, Any]], list[Any]]:
        """Return what the changelog says."""
        found = read_all(self.kafka, "count.state")
        return replay(Change(each.key(), each.value()) for each in found)


def wait_for(holds: Callable[[], bool], seconds: float = WAIT_S) -> float:
    """Wait until something holds; return how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "not in time"
        time.sleep(0.05)
    return time.monotonic() - began
