"""One destination: reads its delivery topic, delivers by a transport, commits its position.

In: `delivery.<tenant>.<destination>`. Out: `dead.letter` or `device.events`, with the position.
At least once, in order per device, one in flight per device. When the destination fails it alone
pauses; what came of each delivery is written before or with the position that passes it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from pipeline.errors import FunicularError, RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Log
from pipeline.sink.clock import Clock
from pipeline.sink.commits import Commits
from pipeline.sink.endings import BAD_DELIVERY, Ended, Ending, How, unreadable
from pipeline.sink.health import Health
from pipeline.sink.lanes import Entry, Lanes
from pipeline.sink.news import DestinationStatus, News
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Result, Transport, Verdict
from pipeline.topics import delivery_topic

EXPIRY_CHECK_S_MAX = 60.0  # The wall clock may jump: expiry is looked at least this often.

_log = get_logger(__name__)
_decode = msgspec.json.Decoder(Delivery).decode


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all destinations of a worker share. `random` gives numbers in [0, 1)."""

    log: Log
    settings: SinkSettings
    metrics: Registry
    now_ms: Callable[[], int]
    random: Callable[[], float]
    clock: Clock


def group_of(tenant: str, destination: str) -> str:
    """Return the consumer group of a destination."""
    return f"sink-{tenant}-{destination}"


class Destination:
    """Runs one destination from `start` to `stop`; one object a run."""

    def __init__(
        self,
        tenant: str,
        name: str,
        transport: Transport,
        ending: Ending,
        surroundings: Surroundings,
    ) -> None:
        topic = delivery_topic(tenant, name)
        self._settings = surroundings.settings
        self._now_ms = surroundings.now_ms
        self._random = surroundings.random
        self._clock = surroundings.clock
        self._transport = transport
        self._ending = ending
        self._health = Health(transport.retry)
        self._news = News(tenant, name, surroundings.metrics)
        self._lanes = Lanes()
        # The reader is made at once, so that the log keeps the records for this group.
        self._reader = surroundings.log.read(topic, group_of(tenant, name))
        self._reader.watch(self)
        self._commits = Commits(
            log=surroundings.log,
            reader=self._reader,
            lanes=self._lanes,
            settings=self._settings,
            clock=self._clock,
            random=self._random,
            name=self._news.name,
        )
        self._in_flight = 0
        self._released = False  # partitions may be on their way to other workers
        self._landed = asyncio.Event()  # set when nothing is in flight
        self._wake = asyncio.Event()  # a delivery may be startable
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Begin. `on_failure` is told of a bug, after which this destination stands still."""
        self._task = asyncio.create_task(self._run(on_failure))

    async def stop(self, timeout_s: float) -> None:
        """Read no more, finish what is in flight within the time, commit, close.

        What does not finish keeps its place in the topic and is delivered by the next run.
        """
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def release(self) -> None:
        """Start nothing, and return when nothing is in flight and all that is done is written."""
        self._released = True
        while self._in_flight:
            self._landed.clear()
            await self._landed.wait()
        await self._commits.settle()

    def hold(self, partitions: Collection[int]) -> None:
        """Go on, with what was read of these partitions alone."""
        self._lanes.keep(partitions)
        self._released = False
        self._commits.written.set()  # there may be room to read more
        self._wake.set()

    def status(self) -> DestinationStatus:
        """Return how it does, for people."""
        news = self._news
        return DestinationStatus(
            **news.name, state=news.state, error=news.error, waiting=self._waiting()
        )

    async def _run(self, on_failure: Callable[[BaseException], None]) -> None:
        try:
            if await self._open():
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(self._read())
                    group.create_task(self._dispatch(group, reading))
                    group.create_task(self._commits.run())
        except Exception as error:  # noqa: BLE001 - a bug in one must not end the others unseen
            _log.error("A destination stopped by a bug.", **self._news.name, exc_info=error)
            on_failure(error)
        finally:
            self._news.ends()
            await self._close()

    async def _open(self) -> bool:
        attempts = 0
        while not self._stopping.is_set():
            try:
                await self._transport.open()
            except (FunicularError, OSError) as error:
                attempts += 1
                delay_s = self._settings.open_retry.delay_s(attempts, self._random())
                self._news.fails(str(error), "open", delay_s)
                await self._clock.wait(self._stopping, delay_s)
            else:
                self._news.works()
                return True
        return False

    async def _close(self) -> None:
        try:
            await self._transport.close()
        except (FunicularError, OSError) as error:
            _log.warning("A destination did not close.", **self._news.name, error=str(error))
        await self._reader.close()

    # Reading

    async def _read(self) -> None:
        settings = self._settings
        async for records in self._reader.batches(settings.read_records_max):
            self._admit(records)
            while (
                self._waiting() >= settings.waiting_records_max
                or self._lanes.value_bytes >= settings.waiting_bytes_max
            ):
                self._commits.written.clear()
                await self._commits.written.wait()

    def _waiting(self) -> int:
        return len(self._lanes) + len(self._commits)

    def _admit(self, records: Sequence[Record]) -> None:
        now_s = self._clock.monotonic()
        bad: list[Outgoing] = []
        for record in records:
            try:
                delivery = _decode(record.value or b"")
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                message = f"the record is not a delivery: {error}"
                bad.append(unreadable(record, message, self._now_ms()))
                self._lanes.skip(record)
            else:
                self._lanes.admit(record, delivery, now_s)
        if bad:
            self._news.count({How.REFUSED: len(bad)})
            self._news.count_buried(bad, BAD_DELIVERY)
            self._commits.leave(bad)
        self._wake.set()

    # Delivering

    async def _dispatch(self, group: asyncio.TaskGroup, reading: asyncio.Task[None]) -> None:
        while True:
            self._wake.clear()
            self._expire()
            if not self._stopping.is_set():
                if not self._released:
                    self._start_deliveries(group)
            else:
                reading.cancel()
                if not self._in_flight:
                    break
            await self._clock.wait(self._wake, self._until_next())
        self._commits.finish()

    def _start_deliveries(self, group: asyncio.TaskGroup) -> None:
        now_s = self._clock.monotonic()
        slots = self._health.slots(self._transport.concurrency, self._in_flight, now_s)
        for _ in range(slots):
            entries = self._lanes.take(self._transport.deliveries_max, now_s)
            if not entries:
                return
            self._in_flight += 1
            group.create_task(self._deliver(entries))

    def _until_next(self) -> float | None:
        """Return how long there is nothing to do unless `_wake` is set; None: for ever."""
        if self._stopping.is_set() or self._released:
            return None
        now_s = self._clock.monotonic()
        waits: list[float] = []
        expires_at_ms = self._lanes.expires_at_ms()
        if expires_at_ms is not None:
            left_s = (expires_at_ms - self._now_ms()) / 1_000
            waits.append(min(max(left_s, 0.0), EXPIRY_CHECK_S_MAX))
        if self._health.stopped:
            return min(waits) if waits else None
        paused_s = self._health.not_before_s - now_s
        if self._lanes.has_ready(now_s):
            if paused_s > 0:
                waits.append(paused_s)
        elif (ready_s := self._lanes.ready_s()) is not None:
            waits.append(max(ready_s - now_s, paused_s))
        return min(waits) if waits else None

    async def _deliver(self, entries: list[Entry]) -> None:
        started_s = self._clock.monotonic()
        try:
            results = await self._transport.deliver([entry.delivery for entry in entries])
        except (RetryableError, OSError) as error:
            results = [_postponed(error)] * len(entries)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._landed.set()
        assert len(results) == len(entries), "a transport gives one result a delivery"
        self._settle(entries, results, started_s)
        self._wake.set()

    def _settle(self, entries: list[Entry], results: list[Result], started_s: float) -> None:
        now_s = self._clock.monotonic()
        counts: Counter[str] = Counter()
        outcomes: list[Outgoing] = []
        failure: Result | None = None
        random = self._random()  # one for all, so that no device waits longer than the destination
        for entry, result in zip(entries, results, strict=True):
            if result.verdict is Verdict.POSTPONED:
                failure = failure or result
            if entry.gone:
                # Another worker reads it again: what came of it is told there.
                self._lanes.finish(entry)
                continue
            if result.verdict is Verdict.POSTPONED:
                counts["retried"] += 1
                if self._postpone(entry, result, now_s, random):
                    outcomes += self._end(entry, How.GIVEN_UP, result, counts)
                continue
            if result.pause_s is not None:
                self._health.pause(now_s + result.pause_s)
            if result.verdict is Verdict.REFUSED:
                self._news.refuses(result, now_s)
                outcomes += self._end(entry, How.REFUSED, result, counts)
            else:
                outcomes += self._end(entry, How.DELIVERED, result, counts)
        self._note(failure, started_s=started_s, now_s=now_s, random=random)
        self._lanes.release(entries, now_s)
        self._news.count(counts)
        self._commits.leave(outcomes)

    def _end(self, entry: Entry, how: How, result: Result, counts: Counter[str]) -> list[Outgoing]:
        ended = Ended(how, result, entry.attempts, entry.error, entry.uncertain)
        outgoing = self._ending(entry.record, entry.delivery, ended, self._now_ms())
        self._news.count_buried(outgoing, ended.reason)
        self._lanes.finish(entry)
        counts[how] += 1
        return outgoing

    def _postpone(self, entry: Entry, result: Result, now_s: float, random: float) -> bool:
        """Let the entry wait; return whether it is to be given up instead."""
        retry = self._transport.retry
        delay_s = max(retry.delay_s(entry.attempts + 1, random), result.pause_s or 0.0)
        self._lanes.postpone(entry, now_s + delay_s)
        entry.error = result.message
        entry.uncertain = entry.uncertain or result.uncertain
        return retry.give_up_after is not None and now_s - entry.since_s >= retry.give_up_after

    def _expire(self) -> None:
        expired = self._lanes.expire(self._now_ms())
        if not expired:
            return
        counts: Counter[str] = Counter()
        outcomes: list[Outgoing] = []
        for entry in expired:
            outcomes += self._end(entry, How.EXPIRED, _EXPIRED, counts)
        self._news.count(counts)
        self._commits.leave(outcomes)

    def _note(
        self, failure: Result | None, *, started_s: float, now_s: float, random: float
    ) -> None:
        health = self._health
        if failure is None:
            health.worked(started_s=started_s)
            if not health.failures:
                self._news.works()
            return
        pause_s = failure.pause_s or 0.0
        health.failed(started_s=started_s, now_s=now_s, pause_s=pause_s, random=random)
        if failure.stop:
            health.stop()
            self._news.stops(failure.message)
            return
        self._news.fails(failure.message, failure.reason, health.not_before_s - now_s)


_EXPIRED = Result(Verdict.REFUSED, "expired", "its time ran out before it could be sent")


def _postponed(error: RetryableError | OSError) -> Result:
    if isinstance(error, RetryableError):
        message, reason, pause_s = error.message, error.code, error.retry_after_s
    else:
        message, reason, pause_s = str(error), "os", None
    return Result(Verdict.POSTPONED, reason, message, pause_s=pause_s, uncertain=True)
