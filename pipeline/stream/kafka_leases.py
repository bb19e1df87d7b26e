"""Leases on Kafka: who has a partition of the topic of cursors has the leases of its keys.

In: the names that this worker would run (`tenant/integration`), and the group's word on who has
which partition; all ingest workers are its members. Out: `ports.Lease`s. Partitions move one by one
(cooperative): what stays with a worker is not interrupted, and who loses one first ends what runs
by it. A worker that dies, or is cut off, is out of the group after `session_timeout_s`; one that
was stopped and goes on finds by its own clock that it was away, before it does anything.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from pipeline.errors import FunicularError, RetryableError
from pipeline.logs import get_logger
from pipeline.stream.kafka_client import (
    Complaints,
    admin_client,
    consumer_options,
    error_of,
    refuse,
    unreachable,
)
from pipeline.stream.kafka_cursors import KafkaLease, Place
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import partition_of
from pipeline.topics import SOURCE_CURSOR

GROUP = "ingest.sources"
TICK_S = 0.1
# How long whoever loses a lease may take to end what runs by it; then it may run twice for a
# moment, and its next append is refused.
LET_GO_S = 10.0
LOOK_EVERY_S = 5.0

_log = get_logger(__name__)


class KafkaLeases:
    """See `ports.Leases`. Joins the group when the first lease is asked for.

    One thread talks with the group; leases are for one event loop.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        worker: str,
        settings: KafkaEngineSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`worker` is how the others are told who has a lease; `clock` gives seconds, and goes on
        while this process is stopped.
        """
        self._kafka = kafka
        self._settings = settings or KafkaEngineSettings()
        self._worker = worker
        self._clock = clock
        self._topic = kafka.topic(SOURCE_CURSOR)
        self._group = kafka.group(GROUP)
        self._complaints = Complaints(self._group)
        self._lock = threading.Lock()
        self._count = 0  # the topic's partitions; 0: not known yet
        self._ours: frozenset[int] = frozenset()
        self._held: dict[str, KafkaLease] = {}
        self._owners: dict[int, str] = {}
        self._looked_s = float("-inf")
        self._seen_s = self._clock()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.trouble = ""

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[KafkaLease]:
        """See `ports.Leases`."""
        self._join()
        lease = await self._granted(name)
        try:
            yield lease
        finally:
            await lease.close()
            with self._lock:
                del self._held[name]
            lease.ended.set()

    def owner(self, name: str) -> str:
        """Return the worker that the group's coordinator named, a few seconds ago at most."""
        return self._owners.get(partition_of(name, self._count), "") if self._count else ""

    async def close(self) -> None:
        """Leave the group: the others need not wait until we are missed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            await asyncio.to_thread(thread.join)

    async def _granted(self, name: str) -> KafkaLease:
        """Return the lease once it is ours; see meanwhile who has it."""
        while True:
            self._changed.clear()
            with self._lock:
                partition = partition_of(name, self._count) if self._count else -1
                if partition in self._ours and self._awake():
                    place = Place(self._topic, partition, name)
                    lease = KafkaLease(self._kafka, self._settings, place, self._awake)
                    self._held[name] = lease
                    return lease
            if self._clock() - self._looked_s > LOOK_EVERY_S and self._count:
                self._looked_s = self._clock()
                self._owners = await asyncio.to_thread(self._look)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S / 5):
                    await self._changed.wait()

    def _awake(self) -> bool:
        """Whether the thread saw the group's news a short while ago. Where it did not, this process
        did not run, and others may have been given what it has.
        """
        return self._clock() - self._seen_s < self._settings.session_timeout_s / 2

    def _look(self) -> dict[int, str]:
        """Return who has which partition; nobody where that is not known."""
        admin = admin_client(self._kafka, self._group)
        try:
            asked = admin.describe_consumer_groups(
                [self._group], request_timeout=self._settings.call_timeout_s
            )
            found = asked[self._group].result()
        except KafkaException as error:
            _log.debug("it is not known who has which lease", why=error_of(error).str())
            return {}
        return {
            place.partition: member.client_id
            for member in found.members
            if member.assignment is not None
            for place in member.assignment.topic_partitions
        }

    # In the thread

    def _join(self) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause_s = self._kafka.retry_first_s
        while not self._stopping.is_set():
            try:
                self._serve()
            except (FunicularError, KafkaException) as error:
                said = error.message if isinstance(error, FunicularError) else str(error_of(error))
                if said != self.trouble:
                    _log.error("it cannot be told which worker has which lease", error=said)
                self.trouble = said
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, self._kafka.retry_max_s)
            else:
                pause_s = self._kafka.retry_first_s

    def _serve(self) -> None:
        """Be a member until stopped, or until this process was away for too long."""
        self._seen_s = self._clock()
        options = consumer_options(self._kafka, self._settings, self._group)
        consumer = Consumer(options | {"client.id": self._worker, "error_cb": self._complaints})
        try:
            self._find(consumer)
            consumer.subscribe(
                [self._topic],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._gone,
            )
            while not self._stopping.is_set():
                message = consumer.poll(TICK_S)
                if not self._awake():
                    _log.warning("this worker stood still; its leases may be others' now")
                    return
                self._seen_s = self._clock()
                if message is not None and (error := message.error()) is not None:
                    refuse(error)
                    if error.fatal():
                        raise KafkaException(error)
        finally:
            self._lose(self._ours, wait=False)
            consumer.close()

    def _find(self, consumer: Consumer) -> None:
        """See how many partitions there are. RetryableError: none, or nobody answers."""
        try:
            known = consumer.list_topics(self._topic, self._settings.call_timeout_s)
        except KafkaException as error:
            refuse(error_of(error))
            raise unreachable(self._kafka, error, self._complaints) from None
        about = known.topics[self._topic]
        if about.error is not None:
            refuse(about.error)
            raise RetryableError(
                f"Kafka at {self._kafka.bootstrap} does not have the topic {self._topic};"
                " make it with `funicular topics create`",
                code="topics",
            )
        with self._lock:
            self._count = len(about.partitions)
        self._seen_s = self._clock()

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        # Nothing is read here: a cursor is read when a lease begins.
        at_end = [TopicPartition(place.topic, place.partition, OFFSET_END) for place in places]
        consumer.incremental_assign(at_end)
        if places:
            consumer.pause(at_end)
        with self._lock:
            self._ours |= {place.partition for place in places}
        self.trouble = ""
        self._tell(self._changed.set)

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._lose({place.partition for place in places}, wait=True)
        consumer.incremental_unassign(places)
        self._seen_s = self._clock()

    def _gone(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._lose({place.partition for place in places}, wait=False)
        consumer.incremental_unassign(places)

    def _lose(self, partitions: Collection[int], *, wait: bool) -> None:
        """Take leases back; `wait` until nothing runs by them any more, for a while."""
        with self._lock:
            self._ours -= frozenset(partitions)
            lost = [lease for lease in self._held.values() if lease.partition in partitions]
        for lease in lost:
            lease.take_back()
            self._tell(lease.gone.set)
        deadline = self._clock() + LET_GO_S
        for lease in lost if wait else ():
            while not lease.ended.wait(TICK_S):
                # We are heard of by librdkafka's own heartbeats meanwhile.
                self._seen_s = self._clock()
                if self._clock() > deadline or self._loop_is_closed():
                    _log.warning("a source does not end; its lease goes on", lease=lease.name)
                    break

    def _loop_is_closed(self) -> bool:
        return self._loop is None or self._loop.is_closed()

    def _tell(self, call: Any) -> None:
        if not self._loop_is_closed():
            assert self._loop is not None
            with suppress(RuntimeError):  # it closes just now
                self._loop.call_soon_threadsafe(call)
