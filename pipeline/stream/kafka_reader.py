"""Reads one topic of Kafka for asyncio: a sink's share of its partitions, or one for itself.

Out come records of committed transactions; back come positions. As a member of a group the reader
is told which partitions it has; its `ports.Holder` finishes what is under way before they may go.
Where the cluster was away, or the client stands still while there is something to read, the client
is thrown away and another one goes on from the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
)

from pipeline.clients.kafka import POLL_INTERVAL_MAX_MS, fetch, only_our_cancellation, sticky, stop
from pipeline.errors import ClosedError, RetryableError
from pipeline.logs import get_logger
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Holder
from pipeline.stream.kafka_records import record_of
from pipeline.stream.kafka_settings import KafkaSettings

_FAULTS = (KafkaError, ConsumerStoppedError, OSError, TimeoutError)

_log = get_logger(__name__)
Append = Callable[[Sequence[Outgoing]], Awaitable[None]]


class KafkaReader:
    """Reads for one event loop; `ports.Reader`.

    With `group` as a member of it, at its committed position (new group: the earliest record).
    Without: all partitions, or `partition` alone, from the end on or from the earliest record;
    then no position is kept on the cluster.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        append: Append,
        *,
        group: str | None,
        from_end: bool = False,
        partition: int | None = None,
        on_end: Callable[[KafkaReader], None] = lambda _: None,
    ) -> None:
        self.topic = topic
        self.group = group
        self._settings = settings
        self._append = append
        self._from_end = from_end
        self._partition = partition
        self._on_end = on_end
        self._name = {"topic": topic} | ({"group": group} if group else {})
        self._consumer: AIOKafkaConsumer | None = None
        self._opening = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._holder: Holder | None = None
        self._owned: frozenset[int] = frozenset()
        self._next: dict[int, int] = {}  # the next offset that was not given out
        self._committed: dict[int, int] = {}  # the position on the cluster, as far as is known
        self._wanted: dict[int, int] = {}  # the position that it is to have
        self._steady = asyncio.Event()  # set while partitions do not move
        self._idle = asyncio.Event()  # set while no fetch is under way
        self._idle.set()
        self._moved_s = 0.0  # when something was last read, or partitions came
        self._trouble = False
        self._ended = False

    def watch(self, holder: Holder) -> None:
        """Tell `holder` when partitions come and go."""
        self._holder = holder

    async def opened(self) -> None:
        """Return when the reader stands at its position. RetryableError: not in
        `connect_timeout_s`.
        """
        try:
            with only_our_cancellation():
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    await self._open()
                    await self._steady.wait()
        except _FAULTS as error:
            raise RetryableError(
                f"{self._settings.topic(self.topic)} cannot be read:"
                f" {error or 'no broker gives us a partition'}",
                code="log_unreachable",
            ) from None

    async def batches(self, records_max: int) -> AsyncIterator[Sequence[Record]]:
        """Yield non-empty batches, waiting for new records; ends when the reader is closed.

        Where the cluster is away it waits, for as long as that takes.
        """
        delay_s = self._settings.retry_first_s
        while not self._ended:
            try:
                with only_our_cancellation():
                    records = await self._fetch(records_max)
                    if not records:
                        await self._look_after()
            except ClosedError:
                return
            except _FAULTS as error:
                await self._abandon(error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, self._settings.retry_max_s)
                continue
            delay_s = self._settings.retry_first_s
            if records and not self._ended:
                yield records

    async def commit(
        self, offset: int | Mapping[int, int], records: Sequence[Outgoing] = ()
    ) -> None:
        """Append `records`, then move the position past `offset`: at least once.

        RetryableError: the records may not be there, and no position moved. A position that the
        cluster does not take in `commit_timeout_s` is tried again with the next one; one of a
        partition that went to another member is given up, since that one reads from there.
        """
        if self._ended:
            raise ClosedError("The reader is closed")
        if self.group is not None and self._consumer is None and not self._owned:
            await self.opened()
        if records:
            await self._append(records)
        if self.group is None:
            return
        for partition, last in ({0: offset} if isinstance(offset, int) else offset).items():
            if partition in self._owned and last >= self._committed.get(partition, 0):
                self._wanted[partition] = max(last + 1, self._wanted.get(partition, 0))
        await self._store()

    def lag(self) -> int:
        """Return how many records of our partitions are not committed, as of the last fetch."""
        consumer = self._consumer
        if consumer is None:
            return 0
        waiting = 0
        for partition in self._owned:
            try:
                end = consumer.highwater(self._place(partition))
            except (IllegalStateError, AssertionError):
                continue
            done = self._committed if self.group else self._next
            if end is not None:
                waiting += max(0, end - done.get(partition, 0))
        return waiting

    async def close(self) -> None:
        """Store the last position, leave the group, stop."""
        if self._ended:
            return
        self._ended = True
        await self._store()
        consumer, self._consumer = self._consumer, None
        self._steady.set()
        self._on_end(self)
        if consumer is not None:
            await stop(consumer)

    # Reading

    async def _fetch(self, records_max: int) -> list[Record]:
        """Return what comes soon; nothing while partitions move."""
        consumer = await self._open()
        try:
            # Others may take their time to let partitions go.
            patience_s = max(self._settings.stall_s, 2 * self._settings.rebalance_timeout_s)
            async with asyncio.timeout(patience_s):
                await self._steady.wait()
        except TimeoutError:
            raise TimeoutError("no partitions were given out") from None
        if self._ended:
            return []
        self._idle.clear()
        try:
            return self._take(await fetch(consumer, records_max))
        finally:
            self._idle.set()

    def _take(self, found: Mapping[TopicPartition, Sequence[Any]]) -> list[Record]:
        """Return what was not given out before, as records."""
        records: list[Record] = []
        for place, some in found.items():
            partition = place.partition
            if partition not in self._owned:
                continue
            after = self._next.get(partition, 0)
            records += [record_of(self.topic, one) for one in some if one.offset >= after]
            self._next[partition] = max(after, some[-1].offset + 1)
        if records:
            self._moved_s = asyncio.get_running_loop().time()
            self._say("")
        return records

    async def _look_after(self) -> None:
        """Try stored positions again; and see whether the client stands still."""
        if self._wanted:
            await self._store()
        now_s = asyncio.get_running_loop().time()
        consumer = self._consumer
        if now_s - self._moved_s < self._settings.stall_s or consumer is None:
            return
        places = [self._place(partition) for partition in self._owned]
        with suppress(IllegalStateError):  # they move just now
            async with asyncio.timeout(self._settings.request_timeout_s):
                ends = await consumer.end_offsets(places) if places else {}
                for place, end in ends.items():
                    if await consumer.position(place) < end:
                        raise TimeoutError(f"nothing comes of {place.topic}-{place.partition}")
        self._moved_s = now_s
        self._say("")

    # The client

    async def _open(self) -> AIOKafkaConsumer:
        async with self._opening:
            if self._ended:
                raise ClosedError("The reader is closed")
            if self._consumer is None:
                self._consumer = await self._connect()
            return self._consumer

    async def _connect(self) -> AIOKafkaConsumer:
        settings = self._settings
        options = settings.aiokafka()
        if self.group is not None:
            options |= {
                "group_id": settings.group(self.group),
                "partition_assignment_strategy": sticky(),
                "session_timeout_ms": round(settings.session_timeout_s * 1_000),
                "heartbeat_interval_ms": round(settings.heartbeat_s * 1_000),
                "rebalance_timeout_ms": round(settings.rebalance_timeout_s * 1_000),
                "max_poll_interval_ms": POLL_INTERVAL_MAX_MS,
            }
        consumer = AIOKafkaConsumer(
            **options,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_bytes=settings.fetch_bytes_max,
            max_partition_fetch_bytes=settings.partition_fetch_bytes_max,
        )
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await consumer.start()
                if self.group is None:
                    await self._assign(consumer)
                else:
                    topic = settings.topic(self.topic)
                    consumer.subscribe([topic], listener=_Listener(self, consumer))
        except BaseException:
            await stop(consumer)
            raise
        self._moved_s = asyncio.get_running_loop().time()
        return consumer

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        """Take the partitions without a group, and go on where we were."""
        topic = self._settings.topic(self.topic)
        known = await consumer._client._wait_on_metadata(topic)  # noqa: SLF001 - no public way
        partitions = known if self._partition is None else {self._partition}
        places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        consumer.assign(places)
        new = [place for place in places if place.partition not in self._next]
        ends = await consumer.end_offsets(new) if new and self._from_end else {}
        for place in places:
            if place in ends:
                self._next[place.partition] = ends[place]
            if place.partition in self._next:
                consumer.seek(place, self._next[place.partition])
        self._owned = frozenset(place.partition for place in places)
        self._steady.set()

    async def _abandon(self, error: BaseException) -> None:
        """Throw the client away; the next one goes on from the same place."""
        if self._ended:
            return
        self._say(str(error) or type(error).__name__)
        consumer, self._consumer = self._consumer, None
        self._steady.clear()
        if consumer is not None:
            await stop(consumer)

    def _say(self, trouble: str) -> None:
        """Log a change from working to not working, and back."""
        if trouble and not self._trouble:
            _log.warning("A topic cannot be read; it is tried again.", **self._name, error=trouble)
        elif self._trouble and not trouble:
            _log.info("A topic can be read again.", **self._name)
        self._trouble = bool(trouble)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.topic(self.topic), partition)

    # Partitions come and go

    async def revoked(self, consumer: AIOKafkaConsumer) -> None:
        """Finish what is under way, while we still are a member: partitions may go."""
        if consumer is not self._consumer:
            return
        self._steady.clear()
        await self._idle.wait()
        try:
            # The others wait for us no longer than `rebalance_timeout_s`.
            async with asyncio.timeout(self._settings.rebalance_timeout_s / 2):
                if self._holder is not None and self._owned:
                    await self._holder.release()
        except TimeoutError:
            _log.warning("Partitions go while deliveries are in flight.", **self._name)
        await self._store()

    async def assigned(self, consumer: AIOKafkaConsumer, partitions: frozenset[int]) -> None:
        """Begin with the new ones, go on with those that nobody else had in the meantime."""
        if consumer is not self._consumer:
            return
        found = await self._positions(consumer, partitions)
        kept = {
            partition
            for partition in partitions & self._owned
            if partition in found
            and found[partition]
            <= max(self._committed.get(partition, 0), self._wanted.get(partition, 0))
        }
        for partition in self._owned - kept:
            for kind in (self._next, self._committed, self._wanted):
                kind.pop(partition, None)
        for partition, position in found.items():
            self._committed[partition] = max(position, self._committed.get(partition, 0))
        self._owned = partitions
        if self._holder is not None:
            self._holder.hold(kept)
        self._moved_s = asyncio.get_running_loop().time()
        self._steady.set()

    async def _positions(
        self, consumer: AIOKafkaConsumer, partitions: frozenset[int]
    ) -> dict[int, int]:
        """Return the positions on the cluster; of fewer partitions where it does not say."""
        ours = sorted(partitions)
        try:
            async with asyncio.timeout(self._settings.commit_timeout_s):
                found = await asyncio.gather(
                    *(consumer.committed(self._place(partition)) for partition in ours)
                )
        except _FAULTS as error:
            _log.warning("Positions are not known.", **self._name, error=str(error))
            return {}
        return {partition: at or 0 for partition, at in zip(ours, found, strict=True)}

    async def _store(self) -> None:
        """Try to store the positions that are wanted."""
        async with self._committing:
            wanted = {p: at for p, at in self._wanted.items() if p in self._owned}
            consumer = self._consumer
            if not wanted or consumer is None:
                return
            places = {self._place(partition): at for partition, at in wanted.items()}
            try:
                with only_our_cancellation():
                    async with asyncio.timeout(self._settings.commit_timeout_s):
                        await consumer.commit(places)
            except (CommitFailedError, IllegalStateError):
                # Partitions move; whether these stay with us is seen when that is over.
                return
            except _FAULTS as error:
                self._say(f"positions are not stored: {error or type(error).__name__}")
                return
            for partition, at in wanted.items():
                self._committed[partition] = max(at, self._committed.get(partition, 0))
                if self._wanted.get(partition) == at:
                    del self._wanted[partition]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands on what aiokafka tells of partitions, and of whose client it is."""

    def __init__(self, reader: KafkaReader, consumer: AIOKafkaConsumer) -> None:
        self._reader = reader
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002
        await self._reader.revoked(self._consumer)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        partitions = frozenset(place.partition for place in assigned)
        await self._reader.assigned(self._consumer, partitions)
