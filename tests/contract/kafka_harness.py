"""The engine on Kafka for the conformance suite: on a real broker, one partition a topic.

What it shows of topics, state and timers is read from the topics: state is what the changelog says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.model.record import Outgoing, Record
from pipeline.ports import Stage
from pipeline.stream.kafka import KafkaEngine
from pipeline.stream.kafka_changes import Change, replay
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_records import header_texts, key_text
from pipeline.stream.kafka_settings import KafkaSettings
from tests.contract.clock import Clock
from tests.kafka import brokers

DRAIN_S = 30.0
OUTPUTS = ("out", "dead.letter")


class KafkaHarness:
    """The engine on Kafka. `partitions` is how many each topic gets."""

    name = "kafka"
    capabilities = frozenset({"restart"})
    partitions = 1

    def __init__(self, folder: Path) -> None:
        brokers.needed()
        self.cluster = brokers.shared()
        self.kafka = KafkaSettings(bootstrap=self.cluster.bootstrap, prefix=f"t{uuid4().hex[:10]}.")
        self.folder = folder / "state"
        self.clock = Clock()
        self.engine: KafkaEngine | None = None
        self._made: set[str] = set()
        self._producer = Producer(
            self.kafka.confluent()
            | {"partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 0}
        )

    def make(self, *names: str, compacted: Sequence[str] = ()) -> None:
        """Make topics that are not there yet."""
        plain = {name for name in names if name not in self._made}
        state = {name for name in compacted if name not in self._made}
        self._made |= plain | state
        for wanted, policy in ((plain, "delete"), (state, "compact")):
            if wanted:
                self.cluster.create(
                    {self.kafka.topic(name): self.partitions for name in wanted},
                    cleanup_policy=policy,
                    retention_ms="-1",  # the tests' clock stands years ago
                )

    def start(
        self,
        stages: Sequence[Stage],
        *,
        records_max: int = 1_000,
        timers_max: int = 1_000,
        rules: Callable[[], int] = lambda: 0,
        **more: Any,
    ) -> None:
        self.make(
            *OUTPUTS,
            *(stage.topic for stage in stages),
            compacted=[stage.state_topic for stage in stages if stage.state_topic],
        )
        settings = KafkaEngineSettings(
            records_max=records_max,
            timers_max=timers_max,
            retry_first_s=0.001,
            retry_max_s=0.01,
            poll_s=0.02,
            **more,
        )
        self.engine = KafkaEngine(
            self.kafka,
            stages,
            settings,
            state_folder=self.folder,
            clock=self.clock,
            rules=rules,
        )
        self.engine.start()

    def append(self, records: Sequence[Outgoing]) -> None:
        for found in records:
            headers: Any = found.headers
            self._producer.produce(
                self.kafka.topic(found.topic),
                found.value,
                found.key,
                -1 if found.partition is None else found.partition,
                timestamp=self.clock.now_ms,
                headers=headers,
            )
        assert self._producer.flush(DRAIN_S) == 0

    def run(self) -> None:
        assert self.engine is not None
        assert self.engine.drain(DRAIN_S)

    def stop(self) -> None:
        if self.engine is not None:
            assert self.engine.stop(DRAIN_S)
            self.engine = None

    def records(self, topic: str) -> list[Record]:
        return [
            Record(
                topic,
                found.partition(),
                found.offset(),
                found.timestamp()[1],
                key_text(found.key()),
                found.value(),
                header_texts(found.headers() or ()),
            )
            for found in read_all(self.kafka, topic)
        ]

    def state(self, stage: str) -> dict[str, dict[str, Any]]:
        return self._replay(stage)[0]

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]:
        return self._replay(stage)[1]

    def _replay(self, stage: str) -> Any:
        found = read_all(self.kafka, f"{stage}.state")
        return replay(Change(each.key(), each.value()) for each in found)

    def lag(self) -> int:
        assert self.engine is not None
        return sum(self.engine.lag().values())


def read_all(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Return all committed messages of a topic, partition by partition."""
    name = kafka.topic(topic)
    options = {"group.id": "look", "isolation.level": "read_committed",
               "enable.partition.eof": True, "auto.offset.reset": "earliest",
               "enable.auto.commit": False, "fetch.wait.max.ms": 5}  # fmt: skip
    consumer = Consumer(kafka.confluent() | options)
    count = len(
        AdminClient(kafka.confluent()).list_topics(name, timeout=10).topics[name].partitions
    )
    consumer.assign([TopicPartition(name, number, 0) for number in range(count)])
    found: dict[int, list[Any]] = {number: [] for number in range(count)}
    left = set(found)
    deadline = time.monotonic() + DRAIN_S
    while left and time.monotonic() < deadline:
        for message in consumer.consume(10_000, 0.05):
            if message.error() is None:
                found[message.partition()].append(message)
            else:
                assert message.error().name() == "_PARTITION_EOF", message.error()
                left.discard(message.partition())
    consumer.close()
    assert not left, "the topic's end was not reached"
    return [message for number in sorted(found) for message in found[number]]
