"""Runs one stage on Kafka, in a thread of its own.

In come the records of the stage's topic and its due timers, partition by partition; what the stage
made of them is committed in one transaction: outputs, the changelog of its state and timers, and
the offsets. The state stores are changed only after that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from pipeline.errors import MessageError, RetryableError, UsageError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Stage
from pipeline.stream.kafka_group import Group
from pipeline.stream.kafka_handler import Handler
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_partition import Partition, Phase, Portion
from pipeline.stream.kafka_restore import Changelog, Restorer
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_slot import Slot
from pipeline.stream.kafka_store import NEVER, PartitionStore, StoreError
from pipeline.stream.kafka_transactions import Transactions, UnknownOutcomeError, Work

_log = get_logger(__name__)
_FENCED_WITHIN_S = 60.0
_COMING = (Phase.NEW, Phase.RESTORING)


class Place(NamedTuple):
    """Where a stage works: its topic's partitions, its changelog if it has one; and how many
    partitions the topic of answers has.
    """

    partitions: int
    keyed: bool
    changelog: Changelog | None
    replies: int


class View(NamedTuple):
    """How a runner stands, for other threads."""

    resting: bool = False
    commits: int = 0
    next_due_ms: int = NEVER
    positions: Mapping[int, int] = MappingProxyType({})


class KafkaStageRunner:
    """One stage and its thread. `ended` is called in that thread: with the error, or None."""

    def __init__(
        self,
        stage: Stage,
        kafka: KafkaSettings,
        settings: KafkaEngineSettings,
        metrics: Registry,
        *,
        folder: Path,
        clock: Callable[[], int],
        rules: Callable[[], int],
        ended: Callable[[Stage, BaseException | None], None],
    ) -> None:
        self.stage = stage
        self._kafka = kafka
        self._settings = settings
        self._metrics = metrics
        self._folder = folder
        self._clock = clock
        self._rules = rules
        self._ended = ended
        self._handler = Handler(
            stage,
            settings,
            metrics,
            record_bytes_max=kafka.record_bytes_max,
            clock=clock,
            rules=rules,
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stage-{stage.name}", daemon=True)
        self._not_before = 0.0
        self._wait_s = settings.retry_first_s
        self._lag_told = 0.0
        self._commits = 0
        self._fenced: list[float] = []
        self.view = View()
        self._changelog: Changelog | None = None
        self._restorer: Restorer | None = None
        self._slot: Slot
        self._group: Group
        self._transactions: Transactions

    def start(self, place: Place, admin: AdminClient) -> None:
        """Begin. UsageError: its slot is taken."""
        name = self.stage.name
        self._slot = Slot(self._folder, self._settings.slot, self._settings.slots_max)
        worker = self._settings.worker or self._slot.name()
        self._group = Group(
            self._kafka,
            self._settings,
            self._metrics,
            stage=name,
            topic=self.stage.topic,
            partitions=place.partitions,
            keyed=place.keyed,
            dropped=self._dropped,
        )
        self._transactions = Transactions(
            self._kafka,
            self._settings,
            self._metrics,
            name,
            f"{self._kafka.group(name)}.{worker}.{self._slot.number}",
        )
        self._changelog = place.changelog
        self._handler.replies = place.replies
        if place.changelog is not None:
            self._restorer = Restorer(
                self._kafka,
                self._settings,
                self._metrics,
                stage=name,
                changelog=place.changelog,
                admin=admin,
            )
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Have it end after the batch that it is in."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def idle(self) -> bool:
        """Tell whether nothing waits here, as far as it has read, and no timer is due."""
        view = self.view
        return view.resting and view.next_due_ms > self._clock()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._group.open()
            while not self._stopping.is_set():
                self._turn()
        except BaseException as raised:  # noqa: BLE001 - told to the engine, which stops
            error = raised
        try:
            self._close()
        except BaseException as raised:  # noqa: BLE001 - likewise; the first one counts
            error = error or raised
        self._ended(self.stage, error)

    def _close(self) -> None:
        self._group.close()
        self._transactions.close()
        if self._restorer is not None:
            self._restorer.close()
        self._slot.release()

    def _turn(self) -> None:
        """Read what there is, and handle and commit one batch of each partition that has one."""
        left_s = self._not_before - time.monotonic()
        if left_s > 0:
            self._group.read(0, min(left_s, self._settings.poll_s))
            return
        try:
            if not self._transactions.ready:
                self._transactions.open()
            self._settle()
            self._hold()
            waiting = sum(len(each.waiting) for each in self._group.partitions.values())
            if waiting < self._settings.records_max:
                self._group.read(self._settings.records_max - waiting, self._patience_s())
            self._work()
        except RetryableError as error:
            self._back_off(error)
        self._report()

    def _patience_s(self) -> float:
        """Return how long to wait for records."""
        partitions = self._group.partitions.values()
        if any(
            each.phase in _COMING or (each.waiting and each.phase is Phase.READY)
            for each in partitions
        ):
            return 0.0
        due_in_s = (self._next_due_ms() - self._clock()) / 1_000
        return min(max(due_in_s, 0.0), self._settings.poll_s)

    def _next_due_ms(self) -> int:
        ready = (each for each in self._group.partitions.values() if each.phase is not Phase.HELD)
        return min((each.next_due_ms for each in ready), default=NEVER)

    def _settle(self) -> None:
        """Bring new partitions' state here, step by step, while the others go on."""
        partitions = self._group.partitions
        new = [each for each in partitions.values() if each.phase is Phase.NEW]
        if new:
            self._group.locate(new)
            if self._restorer is None:
                for partition in new:
                    partition.ready()
                return
            self._restorer.add({each.number: self._store(each) for each in new}, self._clock())
            for partition in new:
                partition.phase = Phase.RESTORING
        if self._restorer is not None and self._restorer.busy:
            busy = any(each.waiting for each in partitions.values())
            patience_s = 0.0 if busy else self._settings.poll_s
            for number in self._restorer.step(patience_s, self._clock()):
                partitions[number].ready()

    def _hold(self) -> None:
        """Leave partitions alone whose state newer rules than ours made, until we have those."""
        rules = self._rules()
        for partition in self._group.partitions.values():
            if partition.phase in _COMING or not partition.hold(rules):
                continue
            held = partition.phase is Phase.HELD
            _log.warning(
                "a partition waits: newer rules than this worker's have written it"
                if held
                else "a partition goes on: the rules that have written it are here",
                stage=self.stage.name,
                partition=partition.number,
                rules=rules,
                written_with=partition.rules,
            )
            self._metrics.set(
                "funicular_partition_held",
                int(held),
                stage=self.stage.name,
                partition=str(partition.number),
            )

    def _store(self, partition: Partition) -> PartitionStore:
        if partition.store is None:
            folder = self._slot.folder / str(partition.number)
            partition.store = PartitionStore(folder, self._settings.store_buffer_bytes)
        return partition.store

    def _work(self) -> None:
        works: list[tuple[Partition, Portion, Work]] = []
        size = 0
        for partition in self._turns():
            try:
                work = self._handler.prepare(partition, self._settings.bytes_max - size)
            except StoreError as error:
                self._rebuild(partition, error)
                return
            if work is not None:
                works.append((partition, *work))
                size += work[0].size
            if size >= self._settings.bytes_max:
                break
        if works:
            self._commit(works)

    def _turns(self) -> list[Partition]:
        """Return the partitions that can work; one alone where something was too large."""
        ready = [each for each in self._group.partitions.values() if each.phase is Phase.READY]
        alone = [each for each in ready if each.alone]
        # The one that waits for longest goes first: no partition starves behind the limit of bytes.
        ready.sort(key=lambda each: each.waiting[0].time_ms if each.waiting else NEVER)
        return alone[:1] or ready

    def _commit(self, works: list[tuple[Partition, Portion, Work]]) -> None:
        group = self._group.metadata()
        if group is None:
            return
        changelog = "" if self._changelog is None else self._changelog.topic
        try:
            last = self._transactions.commit(
                [work for _, _, work in works], self._group.topic, changelog, group
            )
        except UnknownOutcomeError as error:
            self._outcome_unknown(works, error)
        except MessageError:
            self._too_large(works)
        else:
            self._commits += 1
            self._wait_s = self._settings.retry_first_s
            for partition, portion, work in works:
                self._committed(partition, portion, work, last)

    def _committed(
        self, partition: Partition, portion: Portion, work: Work, last: dict[int, int]
    ) -> None:
        if work.changes:
            assert partition.store is not None
            assert self._changelog is not None
            offset = last.get(partition.number)
            try:
                if offset is None:
                    raise StoreError("no word of where the changelog ends")
                partition.store.apply(work.changes, offset + 1, work.time_ms, self._changelog.id)
            except StoreError as error:
                self._rebuild(partition, error, keep=offset is None)
        partition.next = work.following
        partition.taken(portion.taken)
        stage, number = self.stage.name, str(partition.number)
        add = self._metrics.add
        if partition.oversize:
            add("funicular_dead_letters_total", stage=stage, reason="record_too_large")
        partition.oversize = 0
        add("funicular_stage_records_total", portion.taken, stage=stage, partition=number)
        add("funicular_stage_batches_total", stage=stage, partition=number)
        add("funicular_stage_outputs_total", len(work.outputs), stage=stage, partition=number)
        if portion.misplaced:
            count = len(portion.misplaced)
            add("funicular_dead_letters_total", count, stage=stage, reason="wrong_partition")

    def _outcome_unknown(
        self, works: list[tuple[Partition, Portion, Work]], error: UnknownOutcomeError
    ) -> None:
        """Have offsets and changelog read again, once the producer is a new one."""
        for partition, _, _ in works:
            partition.phase = Phase.NEW
        if error.fenced:
            now = time.monotonic()
            self._fenced = [at for at in self._fenced if now - at < _FENCED_WITHIN_S] + [now]
            if len(self._fenced) >= self._settings.fenced_max:
                raise UsageError(
                    f"Another worker uses the transactional id {self._transactions.id}; give each"
                    " worker a name or a slot of its own"
                )
        raise RetryableError(f"A transaction was given up: {error}", code="transaction")

    def _too_large(self, works: list[tuple[Partition, Portion, Work]]) -> None:
        """Find out by trying one by one which it is; that one becomes a dead letter."""
        for partition, portion, _ in works:
            partition.phase = Phase.NEW
            if len(works) == 1 and portion.taken + len(portion.timers) == 1:
                partition.oversize += 1
                partition.alone = max(partition.alone, 1)
                reason = "record_too_large"
                self._metrics.add(
                    "funicular_dead_letters_total", stage=self.stage.name, reason=reason
                )
            else:
                partition.alone = portion.taken + len(portion.timers)

    def _rebuild(self, partition: Partition, error: StoreError, *, keep: bool = False) -> None:
        """Have a partition's state read from the changelog again."""
        _log.warning(
            "a state store broke; it is made again from the changelog",
            stage=self.stage.name,
            partition=partition.number,
            why=str(error),
        )
        partition.phase = Phase.NEW
        if partition.store is not None and not keep:
            partition.store.clear()

    def _dropped(self, partition: Partition) -> None:
        """Let go of a partition that is not ours any more."""
        if self._restorer is not None:
            self._restorer.drop(partition.number)
        if partition.store is not None:
            at_end = partition.phase is Phase.READY
            partition.store.close(self._clock() if at_end else None)

    def _back_off(self, error: RetryableError) -> None:
        """Do nothing for a while but listen to the group's news."""
        _log.warning(
            "a stage waits to try its batch again",
            stage=self.stage.name,
            code=error.code,
            why=error.message,
        )
        pause_s = self._wait_s if error.retry_after_s is None else error.retry_after_s
        self._not_before = time.monotonic() + min(pause_s, self._settings.retry_max_s)
        self._wait_s = min(self._wait_s * 2, self._settings.retry_max_s)

    def _report(self) -> None:
        """Show how it stands."""
        partitions = self._group.partitions.values()
        resting = self._group.joined and self._transactions.ready and not any(
            each.waiting or each.phase is not Phase.READY for each in partitions
        )  # fmt: skip
        self.view = View(
            resting,
            self._commits,
            self._next_due_ms(),
            {each.number: each.position for each in partitions},
        )
        now = time.monotonic()
        if now - self._lag_told >= self._settings.lag_every_s:
            self._lag_told = now
            self._group.report_lag()
