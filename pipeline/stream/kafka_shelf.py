"""Kafka as dead letters need it (`letters.Shelf`): looked at as a member of no group, written in
transactions.

Whoever replays first takes over the transactional id: another one that replays at the same time
can commit no more, so that no letter is replayed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pipeline.errors import RetryableError, UsageError
from pipeline.model.letters import REPLAYED_ELSEWHERE
from pipeline.model.record import Outgoing, Record
from pipeline.stream.kafka_client import Complaints, error_of, refuse, shared_options, unreachable
from pipeline.stream.kafka_records import header_texts, key_text
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_view import KafkaView
from pipeline.stream.letters import NOWHERE, LogLetters
from pipeline.stream.partitioner import CONFLUENT

TIMEOUT_S = 60.0
"""For one transaction."""
READ_S = 5.0
_FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own errors are called so
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
    }
)


class KafkaLetterBox:
    """The dead letters of a cluster (`model.letters.LetterBox`): each opening sees what became of
    letters until then, and one that writes takes over from who wrote before.
    """

    def __init__(self, kafka: KafkaSettings, now_ms: Callable[[], int]) -> None:
        self._kafka = kafka
        self._now_ms = now_ms

    @contextmanager
    def open(self, *, write: bool) -> Iterator[LogLetters]:
        """See the port."""
        shelf = KafkaShelf(self._kafka, write=write)
        try:
            yield LogLetters(shelf, self._now_ms)
        finally:
            shelf.close()


class KafkaShelf:
    """One cluster. `write`: letters will be replayed or dropped; else it is only looked at."""

    def __init__(self, kafka: KafkaSettings, *, write: bool = False) -> None:
        """UsageError: the cluster refuses. RetryableError: it does not answer."""
        self._kafka = kafka
        self._view = KafkaView(kafka)
        self._complaints = Complaints("dead-letters")
        self._finder: Consumer | None = None
        self._producer = self._begin() if write else None

    def records(
        self, topic: str, *, since_ms: int = 0, past: Mapping[int, int] = NOWHERE
    ) -> Iterator[Record]:
        """See the port."""
        yield from self._view.records(topic, since_ms=since_ms, past=past)

    def record(self, topic: str, partition: int, offset: int) -> Record | None:
        """See the port."""
        if self._finder is None:
            self._finder = self._consumer()
        self._finder.assign([TopicPartition(self._kafka.topic(topic), partition, offset)])
        found = self._finder.poll(READ_S)
        if found is None or found.error() is not None or found.offset() != offset:
            return None
        headers = header_texts([*(found.headers() or ())])
        time_ms = found.timestamp()[1]
        key = key_text(found.key())
        return Record(topic, partition, offset, time_ms, key, found.value(), headers)

    def append(self, records: Sequence[Outgoing]) -> None:
        """See the port."""
        if self._producer is None:
            raise UsageError("The cluster is only looked at here")
        producer = self._producer
        try:
            producer.begin_transaction()
            for record in records:
                producer.produce(
                    self._kafka.topic(record.topic),
                    record.value,
                    record.key.encode(),
                    headers=[(name, text.encode()) for name, text in record.headers.items()],
                )
            producer.commit_transaction(TIMEOUT_S)
        except KafkaException as failed:
            raise self._told(failed) from None

    def close(self) -> None:
        """Disconnect."""
        self._view.close()
        if self._finder is not None:
            self._finder.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            shared_options(self._kafka, "dead-letters")
            | {
                "error_cb": self._complaints,
                "group.id": self._kafka.group("view"),  # no member of it: nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            }
        )

    def _begin(self) -> Producer:
        producer = Producer(
            shared_options(self._kafka, "dead-letters")
            | {
                "error_cb": self._complaints,
                "transactional.id": self._kafka.group("dead-letters"),
                "message.max.bytes": self._kafka.record_bytes_max,
                "partitioner": CONFLUENT,
            }
        )
        try:
            producer.init_transactions(TIMEOUT_S)
        except KafkaException as failed:
            raise self._told(failed) from None
        return producer

    def _told(self, failed: KafkaException) -> UsageError | RetryableError:
        error = error_of(failed)
        refuse(error)
        if error.code() in _FENCED:
            return UsageError(
                "somebody else replays dead letters just now; nothing more is replayed from here",
                code=REPLAYED_ELSEWHERE,
            )
        return unreachable(self._kafka, failed, self._complaints)
