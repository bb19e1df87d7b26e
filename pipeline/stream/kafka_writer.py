"""Appends to Kafka for many at once: durable when acknowledged by all in-sync replicas.

In: appends of the door, the API and the sinks. Out: batches, one under way a partition, so that
what comes meanwhile shares the next request (twice as fast as a request each). The producer is
idempotent: its own retries neither repeat nor reorder. Once one of its batches failed for good
its numbering has a hole, so that it is thrown away and another one made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from pipeline.errors import ClosedError, FunicularError, MessageError, RetryableError
from pipeline.logs import get_logger
from pipeline.model.record import Outgoing
from pipeline.stream.kafka_records import header_bytes
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import key_bytes, partition_of

EXPIRY_CHECK_S = 0.25
PROBE_EVERY_S = 0.5
END_S = 5.0
RECORD_OVERHEAD_BYTES = 64  # What a record costs beside its parts, with room to spare.

_log = get_logger(__name__)


class _Append:
    """One call of `append`: done when all its records are acknowledged."""

    __slots__ = ("deadline_s", "done", "left")

    def __init__(self, done: asyncio.Future[None], left: int, deadline_s: float) -> None:
        self.done = done
        self.left = left
        self.deadline_s = deadline_s

    def acknowledge(self) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Item(NamedTuple):
    """One record as it is written, and the append that it belongs to."""

    append: _Append
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class _Lane:
    """The appends to one partition: `waiting`, and those `under_way` in a request."""

    __slots__ = ("alone", "partition", "task", "topic", "under_way", "waiting")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.waiting: deque[_Item] = deque()
        self.under_way: list[_Item] = []
        self.alone = 0  # so many of the next records go in a request of their own
        self.task: asyncio.Task[None] | None = None


class _Link:
    """One producer; `users` count the batches that it has under way."""

    __slots__ = ("producer", "retired", "stuck", "users")

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.users = 0
        self.retired = False
        self.stuck = False  # a batch was given up that it still has


class Writer:
    """Writes for one event loop. `start` first, `close` last."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._counts: dict[str, int] = {}
        self._link: _Link | None = None
        self._linking = asyncio.Lock()
        self._bytes = 0
        self._outside: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self.trouble = ""
        """Why nothing is acknowledged at present; empty: something was, or nothing was tried."""
        self._hopeful = False  # the partitions have leaders again since the last failure

    async def start(self) -> None:
        """Connect. RetryableError: no broker answered in `connect_timeout_s`."""
        await self._connected()
        self._tasks = [asyncio.create_task(self._expire()), asyncio.create_task(self._probe())]

    async def append(self, records: Sequence[Outgoing]) -> None:
        """Return when all records are acknowledged by all in-sync replicas.

        Records of one partition stay in order; there is no one step for several partitions.
        RetryableError: not acknowledged in `append_timeout_s`; some, or all, may be there, or come
        yet. MessageError `record_too_large`. ClosedError.
        """
        if not records:
            return
        if self._closed:
            raise ClosedError("The log is closed")
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._settings.append_timeout_s
        placed = [(record, self._size(record)) for record in records]
        for topic in {record.topic for record in records}:
            if self._count(topic) is None:
                await self._find(topic, deadline_s)
        size = sum(size for _, size in placed)
        await self._enter(size, deadline_s)
        append = _Append(loop.create_future(), len(records), deadline_s)
        try:
            for record, _ in placed:
                self._place(append, record)
            await append.done
        finally:
            self._bytes -= size
            while self._outside and not self._full(0):
                _open(self._outside.popleft())

    def count(self, topic: str) -> int:
        """Return how many partitions one of our topics has. RetryableError: not known."""
        found = self._count(topic)
        if found is None:
            raise _missing(self._settings.topic(topic))
        return found

    async def find(self, topic: str) -> int:
        """Do the same, and ask the cluster."""
        loop = asyncio.get_running_loop()
        return await self._find(topic, loop.time() + self._settings.append_timeout_s)

    def unready(self) -> str | None:
        """Return why an append would fail; None: it would not, or is worth a try again."""
        return self.trouble if self.trouble and not self._hopeful else None

    async def close(self, timeout_s: float) -> None:
        """Take no more; wait so long for what was handed over, then fail it."""
        self._closed = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        for lane in self._lanes.values():
            if lane.task is not None:
                lane.task.cancel()
            for item in (*lane.under_way, *lane.waiting):
                item.append.fail(ClosedError("The log was closed before Kafka acknowledged this"))
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._outside:
            _open(self._outside.popleft())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None:
            self._retire(self._link)
        if self._closing:
            await asyncio.wait(self._closing, timeout=timeout_s)

    # What goes where

    def _size(self, record: Outgoing) -> int:
        size = len(record.key) + len(record.value or b"") + RECORD_OVERHEAD_BYTES
        for name, value in record.headers.items():
            size += len(name) + len(value) + 2
        if size > self._settings.record_bytes_max:
            raise MessageError(
                f"a record of {size} bytes for {record.topic} is too large; at most"
                f" {self._settings.record_bytes_max} are taken (record_bytes_max)",
                code="record_too_large",
                limit=self._settings.record_bytes_max,
            )
        return size

    def _place(self, append: _Append, record: Outgoing) -> None:
        partition = record.partition
        if partition is None:
            partition = partition_of(record.key, self.count(record.topic))
        lane = self._lanes.get((record.topic, partition))
        if lane is None:
            lane = self._lanes[record.topic, partition] = _Lane(record.topic, partition)
        key = key_bytes(record.key) if record.key else None
        lane.waiting.append(_Item(append, key, record.value, header_bytes(record.headers)))
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain(lane))

    def _count(self, topic: str) -> int | None:
        if self._link is not None:
            cluster = self._link.producer.client.cluster
            partitions = cluster.partitions_for_topic(self._settings.topic(topic))
            if partitions:
                self._counts[topic] = len(partitions)
        return self._counts.get(topic)

    async def _find(self, topic: str, deadline_s: float) -> int:
        name = self._settings.topic(topic)
        try:
            async with asyncio.timeout_at(deadline_s):
                link = await self._connected()
                partitions = await link.producer.partitions_for(name)
        except (KafkaError, TimeoutError):
            raise _missing(name) from None
        self._counts[topic] = len(partitions)
        return self._counts[topic]

    def _full(self, size: int) -> bool:
        return bool(self._bytes) and self._bytes + size > self._settings.queue_bytes_max

    async def _enter(self, size: int, deadline_s: float) -> None:
        """Wait outside while those before hold `queue_bytes_max`."""
        while self._full(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._outside.append(turn)
            try:
                async with asyncio.timeout_at(deadline_s):
                    await turn
            except TimeoutError:
                raise RetryableError(
                    "Kafka acknowledges too little: too much waits already (queue_bytes_max)",
                    code="log_busy",
                ) from None
            if self._closed:
                raise ClosedError("The log is closed")
        self._bytes += size

    # Sending

    async def _drain(self, lane: _Lane) -> None:
        """Send what waits for one partition, a batch at a time, until nothing does."""
        delay_s = self._settings.retry_first_s
        try:
            while lane.waiting:
                try:
                    link = await self._connected()
                except RetryableError as error:
                    self._say(error.message)
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, self._settings.retry_max_s)
                    _drop_done(lane)
                else:
                    delay_s = self._settings.retry_first_s
                    await self._send(lane, link)
        finally:
            lane.task = None

    async def _send(self, lane: _Lane, link: _Link) -> None:
        producer = link.producer
        batch = producer.create_batch()
        taken = _fill(batch, lane)
        if not taken:
            return
        batch.close()
        link.users += 1
        topic = self._settings.topic(lane.topic)
        try:
            async with asyncio.timeout(self._settings.stall_s):
                if not producer.client.cluster.partitions_for_topic(topic):
                    await producer.partitions_for(topic)
                # Does not wait, since no other batch of the partition is under way.
                sent = await producer.send_batch(batch, topic, partition=lane.partition)
                await sent
        except asyncio.CancelledError:
            link.stuck = True
            raise
        except (KafkaError, TimeoutError) as error:
            link.stuck = link.stuck or isinstance(error, TimeoutError)
            self._failed(lane, link, error)
        else:
            for item in taken:
                item.append.acknowledge()
            self._say("")
        finally:
            lane.under_way = []
            link.users -= 1
            if link.retired and not link.users:
                self._close_later(link)

    def _failed(self, lane: _Lane, link: _Link, error: Exception) -> None:
        """Throw the producer away; try records of a batch that was too large one by one."""
        taken = lane.under_way
        self._retire(link)
        if isinstance(error, MessageSizeTooLargeError) and len(taken) > 1:
            lane.waiting.extendleft(reversed(taken))
            lane.alone = len(taken)
            return
        fault = _fault_of(lane.topic, error)
        if not isinstance(fault, MessageError):
            self._say(fault.message)
        for item in taken:
            item.append.fail(_fault_of(lane.topic, error))

    async def _expire(self) -> None:
        """End the waits of appends whose time is up."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(EXPIRY_CHECK_S, self._settings.append_timeout_s / 4))
            now_s = loop.time()
            for lane in self._lanes.values():
                for items in (lane.under_way, lane.waiting):
                    # Each in the order of its deadlines.
                    for item in items:
                        if item.append.deadline_s > now_s:
                            break
                        item.append.fail(self._late(lane))
                _drop_done(lane)

    def _late(self, lane: _Lane) -> RetryableError:
        timeout_s = self._settings.append_timeout_s
        why = f": {self.trouble}" if self.trouble else ""
        message = f"Kafka did not acknowledge records of {lane.topic} in {timeout_s:g} s{why}"
        self._say(self.trouble or message)
        return RetryableError(message, code="log_timeout")

    def _say(self, trouble: str) -> None:
        """Log a change from working to not working, and back."""
        if trouble and not self.trouble:
            _log.error("Kafka takes no records; they are tried again.", error=trouble)
        elif self.trouble and not trouble:
            _log.info("Kafka takes records again.")
        self.trouble = trouble
        self._hopeful = False

    async def _probe(self) -> None:
        """After a failure, look whether the cluster can take records again. Who asks `unready`
        first appends nothing until then, so that no append would find it out.
        """
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            trying = any(lane.task is not None for lane in self._lanes.values())
            if not self.unready() or trying:
                continue
            try:
                link = await self._connected()
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    for topic in {each.topic for each in self._partitions()}:
                        await link.producer.partitions_for(topic)
                    fresh = await link.producer.client.force_metadata_update()
            except (FunicularError, KafkaError, OSError, TimeoutError) as error:
                _log.debug("No broker answers yet.", error=str(error) or type(error).__name__)
                continue
            self._hopeful = fresh and all(
                link.producer.client.cluster.leader_for_partition(each) not in (None, -1)
                for each in self._partitions()
            )

    def _partitions(self) -> list[TopicPartition]:
        """Return the partitions that were written to."""
        return [TopicPartition(self._settings.topic(t), partition) for t, partition in self._lanes]

    # Producers

    async def _connected(self) -> _Link:
        """Return a producer that works as far as is known. RetryableError: none could connect."""
        async with self._linking:
            if self._link is None:
                self._link = _Link(await self._connect())
            return self._link

    async def _connect(self) -> AIOKafkaProducer:
        settings = self._settings
        producer = AIOKafkaProducer(
            **settings.aiokafka(),
            enable_idempotence=True,
            acks="all",
            max_batch_size=settings.batch_bytes_max,
            max_request_size=settings.record_bytes_max,
        )
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await _end(producer, stuck=False)
            raise RetryableError(
                f"No broker of {settings.bootstrap} lets us in: {error or type(error).__name__}",
                code="log_unreachable",
            ) from None
        except BaseException:
            await _end(producer, stuck=False)
            raise
        return producer

    def _retire(self, link: _Link) -> None:
        if self._link is link:
            self._link = None
        if not link.retired:
            link.retired = True
            if not link.users:
                self._close_later(link)

    def _close_later(self, link: _Link) -> None:
        task = asyncio.get_running_loop().create_task(_end(link.producer, stuck=link.stuck))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _end(producer: AIOKafkaProducer, *, stuck: bool) -> None:
    """Close a producer. One that is `stuck` has batches that it would try for ever."""
    try:
        async with asyncio.timeout(END_S):
            if stuck:
                producer._closed = True  # noqa: SLF001 - `stop` would wait for those batches
                await producer._sender.close()  # noqa: SLF001
            else:
                await producer.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        _log.info("A producer did not close by itself.", error=str(error) or type(error).__name__)
    await producer.client.close()


def _fault_of(topic: str, error: Exception) -> FunicularError:
    """Return what an append is told of a request that failed."""
    said = str(error) or type(error).__name__
    if isinstance(error, MessageSizeTooLargeError):
        return MessageError(
            f"a record for {topic} is larger than the topic takes; raise its max.message.bytes",
            code="record_too_large",
        )
    return RetryableError(f"Kafka did not take records of {topic}: {said}", code="log_refused")


def _missing(topic: str) -> RetryableError:
    return RetryableError(
        f"There is no topic {topic}, or no broker says so; make it with `funicular topics create`",
        code="topic_missing",
    )


def _fill(batch: Any, lane: _Lane) -> list[_Item]:
    """Put what waits into a batch, until it is full; return what is in it."""
    taken = lane.under_way
    while lane.waiting:
        item = lane.waiting[0]
        if not item.append.done.done():
            room = batch.append(
                timestamp=None, key=item.key, value=item.value, headers=item.headers
            )
            if room is None:
                break
            taken.append(item)
        lane.waiting.popleft()
        if lane.alone and taken:
            lane.alone -= 1
            break
    return taken


def _drop_done(lane: _Lane) -> None:
    while lane.waiting and lane.waiting[0].append.done.done():
        lane.waiting.popleft()


def _open(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
