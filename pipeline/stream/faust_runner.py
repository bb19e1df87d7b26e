"""Runs one stage in a Faust app: hands it batches, writes what came of them, then acks.

In come the events of the stage's agent and the due timers of its table; out go records to the
topics, then, when Kafka has them, rows to the changelog, and, when Kafka has those, the offset to
commit. One batch at a time, in the order of offsets.

Offsets are not left to Faust: its own commits may pass records that nobody has handled (it fills
gaps whole as soon as one offset in them is acked, and makes gaps when it seeks while it reads).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from faust.types import TP, AppT, EventT

from pipeline import topics
from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.dead_letter import bury
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState, Stage
from pipeline.stream.faust_settings import FaustSettings
from pipeline.stream.faust_state import PartitionState, rows
from pipeline.stream.faust_table import StateTable
from pipeline.stream.kafka_changes import Change
from pipeline.stream.kafka_records import header_bytes, header_texts, key_text
from pipeline.stream.partitioner import partition_of
from pipeline.stream.settings import EngineSettings

_log = get_logger(__name__)
# What another partition than the key's would break: order per device, and who owns its state.
_KEYED = frozenset({topics.DEVICE_EVENTS, topics.DOWNLINK_REQUESTED})


class _GivenUpError(Exception):
    """The partitions are being taken away, or the app stops; the batch is not committed."""


@dataclass(slots=True)
class _Place:
    """Where a worker reads a partition: all before `restored`, and from `since` to before
    `following`, needs no handling any more.
    """

    restored: int
    since: int
    following: int


class FaustRunner:
    """Runs one stage; for the app's event loop alone, but for the stage's own work."""

    def __init__(
        self,
        app: AppT,
        stage: Stage,
        table: StateTable | None,
        *,
        settings: FaustSettings,
        limits: EngineSettings,
        metrics: Registry,
        clock: Callable[[], int],
    ) -> None:
        """`table` is None for a stage that keeps no state."""
        self.stage = stage
        self._app = app
        self._table = table
        self._settings = settings
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._topic = settings.kafka.topic(stage.topic)
        self._changelog = settings.kafka.topic(stage.state_topic or "")
        self._stateless: dict[int, PartitionState] = {}
        self._waiting: dict[int, deque[EventT[Any]]] = {}
        self._count = 0
        self._done: dict[int, int] = {}
        self._places: dict[int, _Place] = {}
        self._shown: set[int] = set()
        self._wakeup = asyncio.Event()
        self._room = asyncio.Event()
        # Closed until Faust has restored the state, and while partitions are moved.
        self._open = False
        self._stopping = False
        self._turn = asyncio.Lock()

    async def offer(self, event: EventT[Any]) -> None:
        """Take an event of the agent; waits while as many wait as Faust may hold."""
        self._waiting.setdefault(event.message.partition, deque()).append(event)
        self._count += 1
        if self._count in {1, self._limits.records_max}:
            self._wakeup.set()
        while self._count >= self._settings.buffer_records:
            self._room.clear()
            await self._room.wait()

    async def run(self) -> None:
        """Handle what comes, until `stop`. Raises what the stage raised."""
        while not self._stopping:
            await self._rest()
            await self._linger()
            for partition in self._partitions():
                async with self._turn:
                    await self._take_turn(partition)

    async def pause(self) -> None:
        """Partitions are taken away: let the batch under way end, forget what waits.

        Faust reads what was not acked again, from the committed offset.
        """
        self._open = False
        self._wakeup.set()
        try:
            async with asyncio.timeout(self._settings.revoke_s), self._turn:
                pass
        except TimeoutError:
            _log.warning("a batch is given up, as its partition moves", stage=self.stage.name)
        self._waiting.clear()
        self._places.clear()
        # Who has them next shows what waits there.
        for partition in list(self._shown):
            self._show_lag(partition, 0)
        self._count = 0
        self._room.set()

    def take_done(self) -> dict[TP, int]:
        """Return, once, the offsets that follow what was handled since the last call."""
        done = {TP(self._topic, number): offset for number, offset in self._done.items()}
        self._done.clear()
        return done

    def resume(self) -> None:
        """Begin to work: partitions are assigned and their state restored."""
        self._open = True
        self._wakeup.set()

    async def stop(self) -> None:
        """Let the batch under way end; nothing is begun any more."""
        self._stopping = True
        await self.pause()

    def wake(self) -> None:
        """Look at the clock again."""
        self._wakeup.set()

    @property
    def ready(self) -> bool:
        """Whether it works: assigned and restored."""
        return self._open

    def idle(self) -> bool:
        """Tell whether nothing waits here: no event, no due timer, no batch under way."""
        due = any(
            (due_ms := state.next_due_ms()) is not None and due_ms <= self._now(state)
            for state in self._states().values()
        )
        return self._open and not due and not self._count and not self._turn.locked()

    def _states(self) -> dict[int, PartitionState]:
        return self._stateless if self._table is None else self._table.kept.partitions

    def _state(self, partition: int) -> PartitionState:
        if self._table is not None:
            return self._table.kept.partition(partition)
        return self._stateless.setdefault(partition, PartitionState())

    def _now(self, state: PartitionState) -> int:
        return max(self._clock(), state.now_ms)

    def _partitions(self) -> list[int]:
        """Return the partitions that have something to do."""
        found = {partition for partition, waiting in self._waiting.items() if waiting}
        for partition, state in self._states().items():
            due_ms = state.next_due_ms()
            if due_ms is not None and due_ms <= self._now(state):
                found.add(partition)
        return sorted(found) if self._open and not self._stopping else []

    async def _rest(self) -> None:
        """Wait until an event is there, a timer is due, or somebody calls."""
        self._wakeup.clear()
        if self._stopping or self._partitions():
            return
        waits = [
            (due_ms - self._now(state)) / 1000
            for state in self._states().values()
            if (due_ms := state.next_due_ms()) is not None
        ]
        # A jump of the wall clock is noticed by looking at it now and then.
        wait_s = min(max(min(waits), 0.001), self._limits.timer_poll_s) if waits else None
        try:
            async with asyncio.timeout(wait_s):
                await self._wakeup.wait()
        except TimeoutError:
            return

    async def _linger(self) -> None:
        """Give a batch the time to grow: Faust hands events over one by one."""
        if not 0 < self._count < self._limits.records_max:
            return
        self._wakeup.clear()
        try:
            async with asyncio.timeout(self._settings.linger_s):
                await self._wakeup.wait()
        except TimeoutError:
            return

    async def _take_turn(self, partition: int) -> None:
        """Handle one batch of a partition, whole."""
        if not self._open or self._stopping:
            return
        if self._table is not None and self._table.kept.broken is not None:
            raise self._table.kept.broken
        generation = self._app.consumer_generation_id
        state = self._state(partition)
        events = self._next_events(partition, generation)
        now_ms = self._now(state)
        records, strays = self._sort_out(partition, events, now_ms)
        batch = Batch(partition, records, state.due(now_ms, self._limits.timers_max))
        try:
            began = time.monotonic()
            kept, outputs = await self._handle(batch, state, now_ms)
            took_s = time.monotonic() - began
            following = events[-1].message.offset + 1 if events else state.following
            changes = self._rows(kept, batch, now_ms, following)
            if self._app.consumer_generation_id != generation:
                raise _GivenUpError
            await self._write([*strays, *outputs])
            # Only now: who finds the offset in the changelog may be sure of the outputs.
            last = await self._write_changelog(partition, changes)
        except _GivenUpError:
            return
        if self._table is not None:
            state.apply(changes)
            self._table.kept.offsets[partition] = last
        state.now_ms = now_ms
        if events:
            self._done[partition] = following
            end = self._app.consumer.highwater(TP(self._topic, partition)) or following
            self._show_lag(partition, max(0, end - following))
        self._measure(batch, strays, took_s)

    def _next_events(self, partition: int, generation: int) -> list[EventT[Any]]:
        """Take the next events of a partition, as many as a batch may have."""
        waiting = self._waiting.get(partition, deque())
        found: list[EventT[Any]] = []
        size = 0
        while waiting and len(found) < self._limits.records_max:
            message = waiting[0].message
            size += len(message.value or b"")
            if found and size > self._limits.bytes_max:
                break
            taken = waiting.popleft()
            self._count -= 1
            # One of before a rebalance comes again, from the committed offset.
            if message.generation_id == generation and not self._repeated(
                partition, message.offset
            ):
                found.append(taken)
        if self._count < self._settings.buffer_records // 2:
            self._room.set()
        return found

    def _repeated(self, partition: int, offset: int) -> bool:
        """Tell whether a record was handled before: Faust reads some twice after a rebalance.

        What was not read in one go is handled, even where it comes late: nothing is lost.
        """
        place = self._places.get(partition)
        if place is None:
            restored = self._state(partition).following
            place = self._places[partition] = _Place(restored, offset, offset)
        if offset < place.restored:
            self._done[partition] = max(self._done.get(partition, 0), offset + 1)
            return True
        if place.since <= offset < place.following:
            return True
        if offset != place.following:
            place.since = offset
        place.following = offset + 1
        return False

    def _sort_out(
        self, partition: int, events: Sequence[EventT[Any]], now_ms: int
    ) -> tuple[list[Record], list[Outgoing]]:
        """Return the records, and dead letters of those that are on a wrong partition."""
        records = [self._record(event) for event in events]
        count = self._app.consumer.topic_partitions(self._topic)
        if self.stage.topic not in _KEYED or not count:
            return records, []
        here = [each for each in records if partition_of(each.key, count) == partition]
        strays = [
            bury(
                each,
                stage=self.stage.name,
                reason="wrong_partition",
                message=f"The key {each.key!r} belongs to partition"
                f" {partition_of(each.key, count)} of {each.topic}, not {partition}; its producer"
                " must use Kafka's murmur2 partitioner",
                detail={},
                now_ms=now_ms,
            )
            for each in records
            if partition_of(each.key, count) != partition
        ]
        return here, strays

    def _record(self, event: EventT[Any]) -> Record:
        message = event.message
        # aiokafka's consumer gives pairs of text and bytes; Faust's type allows more.
        headers: Any = message.headers or ()
        return Record(
            self.stage.topic,
            message.partition,
            message.offset,
            round(message.timestamp * 1000),
            key_text(message.key),
            message.value,
            header_texts(headers),
        )

    async def _handle(
        self, batch: Batch, state: PartitionState, now_ms: int
    ) -> tuple[DeviceState, list[Outgoing]]:
        """Call the stage, in a thread, until it does not say RetryableError."""
        wait_s = self._limits.retry_first_s
        while True:
            kept = DeviceState(state.load, state.load_aside)
            try:
                return kept, await asyncio.to_thread(self.stage.handle, batch, kept, now_ms)
            except RetryableError as error:
                _log.warning(
                    "a stage waits to try its batch again",
                    stage=self.stage.name,
                    code=error.code,
                    why=error.message,
                )
                pause_s = wait_s if error.retry_after_s is None else error.retry_after_s
                await self._pause(min(pause_s, self._limits.retry_max_s))
                wait_s = min(wait_s * 2, self._limits.retry_max_s)

    async def _pause(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, 0.1))
            if not self._open or self._stopping:
                raise _GivenUpError

    def _rows(self, kept: DeviceState, batch: Batch, now_ms: int, following: int) -> list[Change]:
        if self._table is not None:
            return rows(kept.changes, kept.timer_changes, batch.timers, now_ms, following)
        if kept.changes or kept.timer_changes:
            msg = f"The stage {self.stage.name} has no state_topic, and put state or a timer"
            raise RuntimeError(msg)
        return []

    async def _write(self, outputs: Sequence[Outgoing]) -> None:
        """Return when Kafka has acknowledged all of them. Raises when it has not."""
        send = self._app.producer.send
        name = self._settings.kafka.topic
        sent: list[Awaitable[Any]] = []
        try:
            for out in outputs:
                key, headers = out.key.encode("utf-8", "surrogateescape"), header_bytes(out.headers)
                sent.append(
                    await send(name(out.topic), key, out.value, out.partition, None, headers)
                )
        finally:
            await _all(sent)

    async def _write_changelog(self, partition: int, changes: Sequence[Change]) -> int:
        """As `_write`, in their order; return the offset of the last one."""
        send = self._app.producer.send
        sent: list[Awaitable[Any]] = []
        try:
            # One by one, so that those before one that fails are waited for.
            for key, value in changes:
                sent.append(await send(self._changelog, key, value, partition, None, None))
        finally:
            results = await _all(sent)
        return int(results[-1].offset) if results else 0

    def _show_lag(self, partition: int, records: int) -> None:
        self._shown.add(partition)
        self._metrics.set(
            "funicular_lag_records",
            records,
            topic=self.stage.topic,
            group=self._app.conf.id,
            partition=str(partition),
        )

    def _measure(self, batch: Batch, strays: Sequence[Outgoing], took_s: float) -> None:
        name = self.stage.name
        self._metrics.add("funicular_stage_records_total", len(batch.records), stage=name)
        self._metrics.add("funicular_stage_batches_total", stage=name)
        self._metrics.add("funicular_stage_seconds_total", took_s, stage=name)
        if strays:
            self._metrics.add(
                "funicular_dead_letters_total", len(strays), stage=name, reason="wrong_partition"
            )


async def _all(sent: Sequence[Awaitable[Any]]) -> list[Any]:
    """Wait for all of them, also where one failed; then raise its error, or return them."""
    results = await asyncio.gather(*sent, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
