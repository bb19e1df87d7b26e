"""Kafka as the edges (ingest, sinks) use it from asyncio: `ports.Log` and its readers.

In: what the door, the API and the sinks append. Out: deliveries to sinks, one consumer group a
destination; replies to the process that waits for them, from the one partition of its instance.
An append is durable when all in-sync replicas have it. Positions are stored at least once: what a
reader's commit appends is there before the position moves, and may be there twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.clients.kafka import quiet
from pipeline.errors import ClosedError, RetryableError, UsageError
from pipeline.model.dead_letter import DEAD_LETTER_TOPIC
from pipeline.model.record import Outgoing
from pipeline.stream.kafka_reader import KafkaReader
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_writer import Writer
from pipeline.stream.partitioner import partition_of
from pipeline.topics import DEVICE_EVENTS, REPLY, UPLINK_RECEIVED

WRITTEN = (UPLINK_RECEIVED, DEVICE_EVENTS, DEAD_LETTER_TOPIC, REPLY)
"""The topics that the edges write, or whose partitions they have to know."""


class KafkaLog:
    """The log on one cluster. For one event loop: `start` first, `close` last."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.closed = False
        self._writer = Writer(settings)
        self._readers: set[KafkaReader] = set()

    async def start(self, topics: Iterable[str] = WRITTEN) -> None:
        """Connect, and see that these topics are there.

        RetryableError: no broker answered in `connect_timeout_s`. UsageError: topics are missing.
        """
        quiet()
        await self._writer.start()
        asked = list(topics)
        found = await asyncio.gather(
            *(self._writer.find(topic) for topic in asked), return_exceptions=True
        )
        missing = [
            self.settings.topic(topic)
            for topic, answer in zip(asked, found, strict=True)
            if isinstance(answer, RetryableError)
        ]
        if missing:
            raise UsageError(
                f"Kafka at {self.settings.bootstrap} does not have the topics"
                f" {', '.join(missing)}; make them with `funicular topics create`"
            )
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer

    async def append(self, records: Sequence[Outgoing]) -> None:
        """Return when all records are acknowledged by all in-sync replicas.

        Those of one partition are in order; several partitions are no one step: after a
        RetryableError (not acknowledged in `append_timeout_s`) some or all may be there, or come
        yet. MessageError `record_too_large`: nothing was written. Waits while `queue_bytes_max`
        is exceeded by those before it. ClosedError: the log is closed.
        """
        await self._writer.append(records)

    def read(
        self, topic: str, group: str, *, from_end: bool = False, partition: int | None = None
    ) -> KafkaReader:
        """Return a reader at the group's committed position (new group: the earliest record).

        With `from_end` or `partition` it reads for itself alone: all partitions or that one, from
        the end or the earliest record on, and no position is kept on the cluster.
        """
        if self.closed:
            raise ClosedError("The log is closed")
        shared = not from_end and partition is None
        reader = KafkaReader(
            self.settings,
            topic,
            self._writer.append,
            group=group if shared else None,
            from_end=from_end,
            partition=partition,
            on_end=self._readers.discard,
        )
        self._readers.add(reader)
        return reader

    def partition_of(self, topic: str, key: str) -> int:
        """Return the partition that records of this key go to; Kafka's own rule.

        RetryableError: how many partitions the topic has is not known; those that `start` was
        given are known.
        """
        return partition_of(key, self._writer.count(topic))

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, by topic and group, in the partitions that we have."""
        waiting: Counter[tuple[str, str]] = Counter()
        for reader in self._readers:
            if reader.group is not None:
                waiting[reader.topic, reader.group] += reader.lag()
        return dict(waiting)

    def unready(self) -> str | None:
        """Return why appends fail at present, in words; None: they do not, as far as is known."""
        return "the log is closed" if self.closed else self._writer.unready()

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the readers, wait so long for what is being appended, disconnect. May be called
        twice.
        """
        if self.closed:
            return
        self.closed = True
        await asyncio.gather(*(reader.close() for reader in list(self._readers)))
        await self._writer.close(timeout_s)
