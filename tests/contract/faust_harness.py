"""The Faust engine for the conformance suite: on a real broker, one partition a topic.

It gives what the suite asks for while nothing breaks; what comes of a crash is in
`tests/kafka/test_engine_faust.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from pipeline.ports import Stage
from pipeline.stream.faust import FaustEngine, FaustSettings
from pipeline.stream.faust_state import CLOCK
from pipeline.stream.kafka_changes import Change, replay
from pipeline.stream.settings import EngineSettings
from tests.contract.kafka_harness import DRAIN_S, OUTPUTS, KafkaHarness, read_all


class FaustHarness(KafkaHarness):
    """A Faust app; topics, state and timers are looked at as with the engine on Kafka."""

    name = "faust"
    capabilities = frozenset({"restart"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.faust: FaustEngine | None = None
        self.topics: list[str] = []
        self.settings = FaustSettings(
            kafka=self.kafka,
            app_id="faust",
            # Records that are appended together are one batch, also on a busy machine.
            linger_s=0.05,
        )

    def start(
        self,
        stages: Sequence[Stage],
        *,
        records_max: int = 1_000,
        timers_max: int = 1_000,
        **more: Any,
    ) -> None:
        self.topics = [stage.topic for stage in stages]
        self.make(
            *OUTPUTS,
            *self.topics,
            compacted=[stage.state_topic for stage in stages if stage.state_topic],
        )
        limits = EngineSettings(
            records_max=records_max,
            timers_max=timers_max,
            retry_first_s=0.001,
            retry_max_s=0.01,
            **more,
        )
        self.faust = FaustEngine(stages, self.settings, limits, clock=self.clock)
        self.faust.start()

    def run(self) -> None:
        assert self.faust is not None
        self.faust.wake()
        assert self.faust.drain(DRAIN_S)

    def stop(self) -> None:
        if self.faust is not None:
            assert self.faust.stop(DRAIN_S)
            self.faust = None

    def _replay(self, stage: str) -> Any:
        found = [
            Change(each.key(), each.value()) for each in read_all(self.kafka, f"{stage}.state")
        ]
        # The partition's time stands there too.
        return replay(change for change in found if change.key != CLOCK)

    def lag(self) -> int:
        group = {"group.id": self.kafka.group(self.settings.app_id)}
        consumer = Consumer(self.kafka.confluent() | group)
        try:
            places = [
                TopicPartition(self.kafka.topic(topic), number)
                for topic in self.topics
                for number in range(self.partitions)
            ]
            return sum(
                consumer.get_watermark_offsets(place, timeout=DRAIN_S)[1] - max(place.offset, 0)
                for place in consumer.committed(places, timeout=DRAIN_S)
            )
        finally:
            consumer.close()
