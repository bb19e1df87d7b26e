"""Brings the stores of a stage up to its changelog.

In: stores with their checkpoints, and the compacted changelog; out: stores that hold all that was
committed by the time they were handed in. A store older than the changelog keeps deletions, or of
another topic, or past the changelog's end, is made again from the beginning.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka import admin as kafka_admin

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.stream.kafka_changes import Change
from pipeline.stream.kafka_client import error_of, reader_options, refuse
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_store import PartitionStore, StoreError

_log = get_logger(__name__)
# Its documentation has it, its types have not.
_OFFSETS: Any = kafka_admin.OffsetSpec  # type: ignore[attr-defined]
_EARLIEST, _LATEST = _OFFSETS.earliest(), _OFFSETS.latest()
_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own errors are called so
_NO_OFFSET = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - likewise


class Changelog:
    """A compacted topic: its name on the cluster, its id, how long deletions are seen in it."""

    def __init__(self, topic: str, topic_id: str, deletions_ms: int) -> None:
        self.topic = topic
        self.id = topic_id
        self.deletions_ms = deletions_ms


class _Restore:
    """One store on its way: from where it stood to the changelog's end as it was then."""

    def __init__(self, store: PartitionStore, target: int, now_ms: int) -> None:
        self.store = store
        self.target = target
        self.as_of_ms = now_ms
        # Until it is at the end it is as old as it was, or as its first read.
        self.stands_ms = store.checkpoint.time_ms if store.checkpoint.next else now_ms
        self.start = 0
        self.began = time.monotonic()
        self.records = 0


class Restorer:
    """Restores partitions of one changelog, many at a time. One thread uses it."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: KafkaEngineSettings,
        metrics: Registry,
        *,
        stage: str,
        changelog: Changelog,
        admin: kafka_admin.AdminClient,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stage = stage
        self._changelog = changelog
        self._admin = admin
        options = reader_options(kafka, settings, f"{kafka.group(stage)}.restore")
        # It reads what is there, and is to hear at once that this was all.
        self._options = options | {"auto.offset.reset": "error", "fetch.wait.max.ms": 5}
        self._consumer: Consumer | None = None
        self._running: dict[int, _Restore] = {}
        self._said = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a partition is not restored yet."""
        return bool(self._running)

    def add(self, stores: dict[int, PartitionStore], now_ms: int) -> None:
        """Take stores to restore. RetryableError: the cluster does not answer; none was taken."""
        low, high = self._ends(list(stores))
        if not self._running:
            self._said = time.monotonic()
        starts = []
        for partition, store in stores.items():
            why = self._why_anew(store, low[partition], high[partition], now_ms)
            if why:
                _log.info(
                    "a state store is made again from the changelog",
                    stage=self._stage,
                    partition=partition,
                    why=why,
                )
                store.clear()
            restore = _Restore(store, high[partition], now_ms)
            restore.start = max(store.checkpoint.next, low[partition])
            self._running[partition] = restore
            starts.append(TopicPartition(self._changelog.topic, partition, restore.start))
        if self._consumer is None:
            self._consumer = Consumer(self._options)
        self._consumer.incremental_assign(starts)

    def _why_anew(self, store: PartitionStore, low: int, high: int, now_ms: int) -> str:
        at = store.checkpoint
        if at.next == 0:
            return ""
        if at.topic_id != self._changelog.id:
            return "the changelog is another topic of the same name"
        if at.next > high:
            return "it is ahead of the changelog"
        if at.next < low:
            return "the changelog begins after it"
        if now_ms - at.time_ms > self._changelog.deletions_ms:
            return "the changelog has forgotten deletions since"
        return ""

    def drop(self, partition: int) -> None:
        """Stop to restore a partition."""
        if self._running.pop(partition, None) is not None and self._consumer is not None:
            place = TopicPartition(self._changelog.topic, partition)
            self._consumer.incremental_unassign([place])

    def step(self, timeout_s: float, now_ms: int) -> list[int]:
        """Restore some more; return the partitions that are done. A store that breaks begins
        anew.
        """
        if self._consumer is None or not self._running:
            return []
        changes, following, ends, lost = self._read(timeout_s)
        for partition in lost:
            following.pop(partition, None)
            self._again(partition, now_ms)
        done = []
        for partition, offset in following.items():
            restore = self._running[partition]
            at_end = ends.get(partition, -1) >= restore.target
            stands_ms = restore.as_of_ms if at_end else restore.stands_ms
            found = changes.get(partition, ())
            try:
                restore.store.apply(found, offset, stands_ms, self._changelog.id)
            except StoreError as error:
                _log.warning("a state store broke", stage=self._stage, why=str(error))
                self._again(partition, now_ms)
                continue
            restore.records += len(found)
            if at_end:
                done.append(partition)
        for partition in done:
            self._finish(partition)
        self._say()
        return done

    def _read(
        self, timeout_s: float
    ) -> tuple[dict[int, list[Change]], dict[int, int], dict[int, int], set[int]]:
        """Return, by partition, changes, the offset that follows them, and the end if it is seen;
        and the partitions of which the next record is gone.
        """
        assert self._consumer is not None
        changes: dict[int, list[Change]] = {}
        following: dict[int, int] = {}
        ends: dict[int, int] = {}
        lost: set[int] = set()
        for message in self._consumer.consume(self._settings.restore_records_max, timeout_s):
            error = message.error()
            partition: int = message.partition()  # type: ignore[assignment]
            offset: int = message.offset()  # type: ignore[assignment]
            if error is not None and error.code() not in {_EOF, _NO_OFFSET}:
                refuse(error)
                _log.warning("reading a changelog failed", stage=self._stage, why=error.str())
            elif partition not in self._running:
                continue
            elif error is None:
                change = Change(message.key() or b"", message.value())
                changes.setdefault(partition, []).append(change)
                following[partition] = offset + 1
            elif error.code() == _EOF:
                ends[partition] = following[partition] = offset
            else:
                lost.add(partition)
        return changes, following, ends, lost

    def _again(self, partition: int, now_ms: int) -> None:
        store = self._running[partition].store
        self.drop(partition)
        store.clear()
        self.add({partition: store}, now_ms)

    def _finish(self, partition: int) -> None:
        restore = self._running[partition]
        took_s = time.monotonic() - restore.began
        self.drop(partition)
        labels = {"stage": self._stage, "partition": str(partition)}
        self._metrics.set("funicular_restore_seconds", took_s, **labels)
        self._metrics.add("funicular_restore_records_total", restore.records, **labels)
        if restore.records:
            _log.info("state is restored", records=restore.records, seconds=round(took_s, 3),
                      **labels)  # fmt: skip

    def _say(self) -> None:
        """Show the progress at intervals."""
        now = time.monotonic()
        if now - self._said < self._settings.restore_say_every_s:
            return
        self._said = now
        for partition, restore in self._running.items():
            at = restore.store.checkpoint.next
            _log.info(
                "restoring state",
                stage=self._stage,
                partition=partition,
                records=restore.records,
                left=max(0, restore.target - at),
                seconds=round(now - restore.began, 1),
            )

    def _ends(self, partitions: list[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Return the changelog's first offsets and its ends, what is not yet committed included.

        All before such an end is committed or aborted before a restore is done: a record of a
        transaction that is still open holds up the reader.
        """
        found = []
        for spec in (_EARLIEST, _LATEST):
            asked = {TopicPartition(self._changelog.topic, each): spec for each in partitions}
            answers = self._admin.list_offsets(
                asked,
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=self._settings.call_timeout_s,
            )
            try:
                found.append(
                    {place.partition: each.result().offset for place, each in answers.items()}
                )
            except KafkaException as error:
                refuse(error_of(error))
                raise RetryableError(
                    f"The ends of {self._changelog.topic} are not known: {error_of(error).str()}",
                    code="kafka",
                ) from None
        return found[0], found[1]

    def close(self) -> None:
        """Stop."""
        self._running.clear()
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
