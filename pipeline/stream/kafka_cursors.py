"""One lease on Kafka, and the cursor that goes with it: records and cursor in one transaction.

In: records of a source, its cursor. Out: both, committed, or neither. The transactions' id is the
lease's name: a new owner's first one ends what the former left open, and from then on refuses
whatever that one still tries. A commit whose outcome is not known is looked up in the topic.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from pipeline.errors import LeaseLostError, MessageError, RetryableError
from pipeline.model.record import Outgoing
from pipeline.stream.kafka_client import error_of, reader_options, refuse
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_transactions import FENCED, TOO_LARGE, start_producer, throw_away
from pipeline.stream.leases import to_the_end

_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own errors are called so


class Place(NamedTuple):
    """Where a cursor is: the cluster's topic, the partition, the key."""

    topic: str
    partition: int
    name: str


class KafkaLease:
    """See `ports.Lease`. `gone` and `ended` are for who gave it: it was taken back; nothing runs
    by it any more.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: KafkaEngineSettings,
        place: Place,
        awake: Callable[[], bool],
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._place = place
        self._awake = awake
        self._valid = True
        self._producer: Producer | None = None
        self._doubt = ""  # the mark of an append whose outcome is not known
        self._using = asyncio.Lock()
        self.gone = asyncio.Event()
        self.ended = threading.Event()

    @property
    def name(self) -> str:
        """Whose it is: `tenant/integration`."""
        return self._place.name

    @property
    def partition(self) -> int:
        """The partition that it comes with."""
        return self._place.partition

    @property
    def valid(self) -> bool:
        """See `ports.Lease`."""
        if self._valid and not self._awake():
            self.take_back()
            self.gone.set()
        return self._valid

    def take_back(self) -> None:
        """Make it invalid, at once; from any thread."""
        self._valid = False

    async def lost(self) -> None:
        """See `ports.Lease`."""
        await self.gone.wait()

    async def cursor(self) -> Any:
        """See `ports.Lease`; the former owner can append nothing more once this has begun."""
        async with self._using:
            return (await to_the_end(asyncio.to_thread(self._begin)))[0]

    async def append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        """See `ports.Lease`. MessageError `record_too_large`: nothing was written."""
        async with self._using:
            if not self.valid:
                raise LeaseLostError("another worker has this lease now")
            await to_the_end(asyncio.to_thread(self._append, records, cursor))

    async def close(self) -> None:
        """Let go of the producer, once what is under way has ended."""
        self._valid = False
        async with self._using:
            self._discard()

    # In a thread

    def _begin(self) -> tuple[Any, str]:
        """Make a producer, which ends what an earlier one of this name left open, and return the
        cursor and its mark.
        """
        self._open()
        return self._read()

    def _open(self) -> Producer:
        self._discard()
        name = f"{self._kafka.group('ingest')}/{self.name}"
        self._producer = start_producer(self._kafka, self._settings, name)
        return self._producer

    def _append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        if self._doubt and self._producer is None:
            _, mark = self._begin()
            if mark == self._doubt:  # it was committed all the same, and is asked for again
                self._doubt = ""
                return
        producer = self._producer or self._open()
        mark = uuid4().hex
        value = orjson.dumps({"cursor": cursor, "mark": mark})
        prefix = self._kafka.prefix
        try:
            producer.begin_transaction()
            for out in records:
                partition = -1 if out.partition is None else out.partition
                headers: Any = out.headers
                producer.produce(prefix + out.topic, out.value, out.key, partition, headers=headers)
            producer.produce(self._place.topic, value, self.name, self.partition)
            self._doubt = mark
            producer.commit_transaction(self._settings.transaction_timeout_s)
        except (KafkaException, BufferError) as failed:
            self._discard()
            self._refused(failed)
        self._doubt = ""

    def _refused(self, failed: KafkaException | BufferError) -> None:
        """Raise what an append is told."""
        if isinstance(failed, BufferError):
            raise RetryableError("the producer's queue is full", code="kafka") from None
        error = error_of(failed)
        if error.code() in FENCED:
            self.take_back()
            raise LeaseLostError("another worker has this lease now") from None
        refuse(error)
        if error.code() in TOO_LARGE:
            raise MessageError(
                f"A record is larger than Kafka takes: {error.str()}", code="record_too_large"
            ) from None
        raise RetryableError(f"Kafka does not commit: {error.str()}", code="kafka") from None

    def _read(self) -> tuple[Any, str]:
        """Return what is committed under our key; None, and no mark, where nothing is."""
        options = reader_options(self._kafka, self._settings, self._kafka.group("ingest.cursor"))
        consumer = Consumer(options)
        found: bytes | None = None
        key = self.name.encode()
        try:
            consumer.assign([TopicPartition(self._place.topic, self.partition, OFFSET_BEGINNING)])
            while True:
                first = consumer.poll(self._settings.call_timeout_s)
                if first is None:
                    raise RetryableError("the cursor cannot be read: no answer", code="kafka")
                # With time to wait it would wait for all of them.
                for message in (first, *consumer.consume(1_000, 0)):
                    error = message.error()
                    if error is None:
                        found = message.value() if message.key() == key else found
                    elif error.code() == _EOF:
                        told = orjson.loads(found) if found else {}
                        return told.get("cursor"), told.get("mark", "")
                    else:
                        raise KafkaException(error)
        except KafkaException as failed:
            refuse(error_of(failed))
            raise RetryableError(
                f"the cursor cannot be read: {error_of(failed).str()}", code="kafka"
            ) from None
        finally:
            consumer.close()

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            throw_away(producer)
