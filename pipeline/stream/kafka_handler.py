"""Has a stage handle what waits in a partition on Kafka.

In: a partition with its records, state and due timers. Out: what is to be committed in one step.
What the stage may not see (a record on a wrong partition), or what cannot be committed (too large),
becomes a dead letter here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from pipeline.metrics import Registry
from pipeline.model.dead_letter import bury
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState, Stage
from pipeline.stream.kafka_changes import Change, changes_of, timer_key
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_partition import Partition, Portion
from pipeline.stream.kafka_transactions import Work
from pipeline.topics import REPLY


class Handler:
    """Calls one stage. One thread uses it."""

    def __init__(
        self,
        stage: Stage,
        settings: KafkaEngineSettings,
        metrics: Registry,
        *,
        record_bytes_max: int,
        clock: Callable[[], int],
        rules: Callable[[], int],
    ) -> None:
        self.stage = stage
        self._settings = settings
        self._metrics = metrics
        self._record_bytes_max = record_bytes_max
        self._clock = clock
        self._rules = rules
        self.replies = 0  # partitions of the topic of answers

    def prepare(self, partition: Partition, bytes_max: int) -> tuple[Portion, Work] | None:
        """Have the stage handle what comes next; return what is to be committed, None: nothing.

        RetryableError: the stage's, to be tried again. StoreError: the partition's state broke.
        """
        now_ms = max(self._clock(), partition.now_ms)
        rules = self._rules()  # before the stage looks at them: they may only be newer
        store = partition.store
        timers = store.due(now_ms, self._settings.timers_max) if store is not None else []
        portion = partition.portion(bytes_max, self._settings.records_max, timers)
        if not portion.taken and not portion.timers:
            partition.alone = 0
            return None
        if partition.oversize:
            outputs, changes = self._bury_oversize(partition, portion, now_ms)
        else:
            outputs, changes = self._handle(partition, portion, now_ms)
        outputs = [self._addressed(out, now_ms) if out.topic == REPLY else out for out in outputs]
        outputs += [self._misplaced(record, now_ms) for record in portion.misplaced]
        partition.now_ms = now_ms
        partition.rules = rules
        following = self._following(partition, portion)
        return portion, Work(
            partition.number, following, partition.metadata, now_ms, outputs, changes
        )

    def _following(self, partition: Partition, portion: Portion) -> int:
        if portion.taken:
            return partition.waiting[portion.taken - 1].offset + 1
        # Timers alone: the place stays; of a topic that nobody has read yet it is its start.
        return partition.next or 0

    def _handle(
        self, partition: Partition, portion: Portion, now_ms: int
    ) -> tuple[list[Outgoing], list[Change]]:
        if not portion.records and not portion.timers:
            return [], []
        store = partition.store
        state = (
            DeviceState(lambda _key: {})
            if store is None
            else DeviceState(store.load, store.load_aside)
        )
        batch = Batch(partition.number, portion.records, portion.timers)
        began = time.perf_counter()
        outputs = self.stage.handle(batch, state, now_ms)
        self._metrics.add(
            "funicular_stage_seconds_total", time.perf_counter() - began, stage=self.stage.name
        )
        timers: dict[tuple[str, str], tuple[int, Any] | None] = {
            (timer.key, timer.name): None for timer in portion.timers
        }
        timers.update(state.timer_changes)
        if store is None and (timers or state.changes):
            message = f"Stage {self.stage.name} keeps state, but says no state_topic"
            raise TypeError(message)
        return list(outputs), changes_of(state.changes, timers)

    def _addressed(self, out: Outgoing, now_ms: int) -> Outgoing:
        """Return an output, or its dead letter where it is an answer to nowhere: the header
        `reply_to` of a foreign producer says what it likes, and no transaction with it would end.
        """
        if out.partition is None or 0 <= out.partition < self.replies:
            return out
        return bury(
            Record(out.topic, out.partition, -1, now_ms, out.key, out.value, out.headers),
            stage=self.stage.name,
            reason="no_partition",
            message=f"`reply_to` names partition {out.partition} of {self.replies}",
            detail={},
            now_ms=now_ms,
        )

    def _misplaced(self, record: Record, now_ms: int) -> Outgoing:
        return bury(
            record,
            stage=self.stage.name,
            reason="wrong_partition",
            message=(
                f"Its key belongs to another partition of {record.topic} than {record.partition};"
                " write with Kafka's murmur2 partitioner (librdkafka: partitioner=murmur2_random)"
            ),
            detail={},
            now_ms=now_ms,
        )

    def _bury_oversize(
        self, partition: Partition, portion: Portion, now_ms: int
    ) -> tuple[list[Outgoing], list[Change]]:
        """Return a dead letter in place of what was too large to commit, the value left out where
        that is too large too.
        """
        changes: list[Change] = []
        records = list(portion.records)
        for timer in portion.timers:
            changes.append(Change(timer_key(timer.key, timer.name), None))
            value = orjson.dumps(timer.data)
            topic = self.stage.topic
            records.append(Record(topic, partition.number, -1, now_ms, timer.key, value, {}))
        detail = {"limit": self._record_bytes_max}
        outputs = []
        for record in records:
            found, more = record, detail
            if partition.oversize > 1:
                more = detail | {"value_bytes": len(record.value or b"")}
                found = Record(record.topic, record.partition, record.offset, record.time_ms,
                               record.key, None, {})  # fmt: skip
            outputs.append(
                bury(
                    found,
                    stage=self.stage.name,
                    reason="record_too_large",
                    message="What came of it is larger than a record on Kafka may be",
                    detail=more,
                    now_ms=now_ms,
                )
            )
        return outputs, changes
