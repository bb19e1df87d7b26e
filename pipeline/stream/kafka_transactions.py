"""The transactions of one stage: outputs, changelog and offsets, in one step or not at all.

In: what came of a batch. Out: the changelog's offsets once it is committed; or
`UnknownOutcomeError`, after which the producer is gone: only a new one, whose start ends what the
old one left open, and the group's offsets read again say what became of the batch. (librdkafka
repeats a commit that timed out; a late one could otherwise hit the transaction after it.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from pipeline.errors import MessageError, RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.stream.kafka_calls import Calls
from pipeline.stream.kafka_changes import Change
from pipeline.stream.kafka_client import error_of, producer_options, refuse
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings

_log = get_logger(__name__)
_FULL_S = 0.02
# A transaction that begins while the coordinator still ends the one before is refused, and
# librdkafka asks again after 20 ms, whatever it is told. A batch that was handled in less waits for
# that end: 1 ms is the best of what was tried (`python -m tests.bench.kafka_transactions`).
_SETTLE_S = 0.001
_GRACE_S = 1.0
# Half of what brokers take by default.
_LARGE_BYTES = 512 * 1024
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own errors are called so
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)


class UnknownOutcomeError(Exception):
    """Whether the transaction is committed is to be found out. `fenced`: another producer has
    our id.
    """

    def __init__(self, message: str, *, fenced: bool = False) -> None:
        super().__init__(message)
        self.fenced = fenced


class Work(NamedTuple):
    """What came of one partition's batch. `metadata` is kept beside the offset `following`."""

    partition: int
    following: int
    metadata: str
    time_ms: int
    outputs: Sequence[Outgoing]
    changes: Sequence[Change]


class Transactions:
    """One producer at a time, under one transactional id. One thread uses it."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: KafkaEngineSettings,
        metrics: Registry,
        stage: str,
        transactional_id: str,
    ) -> None:
        self.id = transactional_id
        self._kafka = kafka
        self._settings = settings
        self._metrics = metrics
        self._stage = stage
        self._producer: Producer | None = None
        self._timeout_s = settings.transaction_timeout_s
        self._large = False
        self._refused: KafkaError | None = None
        self._settled = 0.0  # when the coordinator has ended the last one, most likely
        self._calls = Calls(f"transaction-{stage}")

    @property
    def ready(self) -> bool:
        """Whether there is a producer."""
        return self._producer is not None

    def open(self) -> None:
        """Start a producer; raises what `start_producer` does."""
        self._producer = start_producer(self._kafka, self._settings, self.id)

    def discard(self) -> None:
        """Throw the producer away, with whatever it has not sent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            throw_away(producer)

    def close(self) -> None:
        """Throw the producer away, for good."""
        self.discard()
        self._calls.close()

    def commit(
        self, works: Sequence[Work], topic: str, changelog: str, group: object
    ) -> dict[int, int]:
        """Commit; return the offset of each partition's last record in the changelog.

        UnknownOutcomeError: the producer is discarded. MessageError `record_too_large`: nothing
        is committed; the producer is still good, or discarded.
        """
        producer = self._producer
        assert producer is not None
        began = time.perf_counter()
        last: dict[int, int] = {}
        self._large = False
        self._refused = None
        time.sleep(max(0.0, self._settled - time.monotonic()))
        try:
            producer.begin_transaction()
            for work in works:
                self._produce(producer, work, changelog, last)
            if self._large:
                self._wait_for_large(producer)
            offsets = [
                TopicPartition(topic, work.partition, work.following, work.metadata)
                for work in works
            ]
            self._end(producer, offsets, group)
        except KafkaException as failed:
            self._give_up(error_of(failed))
        except TimeoutError as late:
            self._count("aborted")
            self.discard()
            raise UnknownOutcomeError(f"the end of a transaction: {late}") from None
        except BaseException:
            self._count("aborted")
            self.discard()
            raise
        self._settled = time.monotonic() + _SETTLE_S
        self._count("committed")
        self._metrics.add(
            "funicular_transaction_seconds_total", time.perf_counter() - began, stage=self._stage
        )
        return last

    def _end(self, producer: Producer, offsets: list[TopicPartition], group: object) -> None:
        """Commit offsets and all. TimeoutError: the client does not come back."""
        timeout_s = self._timeout_s

        def end() -> None:
            producer.send_offsets_to_transaction(offsets, group, timeout_s)
            producer.commit_transaction(timeout_s)

        self._calls.run(end, 2 * timeout_s + _GRACE_S)

    def _produce(
        self, producer: Producer, work: Work, changelog: str, last: dict[int, int]
    ) -> None:
        append = producer.produce
        prefix = self._kafka.prefix
        time_ms = work.time_ms
        for out in work.outputs:
            partition = -1 if out.partition is None else out.partition
            arguments = (prefix + out.topic, out.value, out.key, partition)
            headers: Any = out.headers
            told = None
            if out.value is not None and len(out.value) > _LARGE_BYTES:
                self._large = True
                told = self._large_delivered
            try:
                append(*arguments, timestamp=time_ms, headers=headers, on_delivery=told)
            except BufferError:
                more = {"timestamp": time_ms, "headers": headers, "on_delivery": told}
                self._patiently(producer, *arguments, **more)
        if not work.changes:
            return

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:
                last[work.partition] = message.offset()

        end = len(work.changes) - 1
        for number, change in enumerate(work.changes):
            entry = (changelog, change.value, change.key, work.partition)
            # The last one's offset tells the others': they are of one partition, in order.
            on_delivery = delivered if number == end else None
            try:
                append(*entry, timestamp=time_ms, on_delivery=on_delivery)
            except BufferError:
                self._patiently(producer, *entry, timestamp=time_ms, on_delivery=on_delivery)

    def _large_delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None and self._refused is None:
            self._refused = error

    def _wait_for_large(self, producer: Producer) -> None:
        """See whether the brokers take what is large: a commit would say so only by its timeout."""
        deadline = time.monotonic() + self._timeout_s
        while self._refused is None and producer.flush(_FULL_S):
            if time.monotonic() > deadline:
                return
        if self._refused is not None:
            raise KafkaException(self._refused)

    def _patiently(self, producer: Producer, *arguments: Any, **more: Any) -> None:
        """Produce when there is room in the queue again."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            producer.poll(_FULL_S)
            try:
                producer.produce(*arguments, **more)
            except BufferError:
                if time.monotonic() > deadline:
                    self._count("aborted")
                    self.discard()
                    message = "the producer's queue stays full"
                    raise UnknownOutcomeError(message) from None
            else:
                return

    def _give_up(self, error: KafkaError) -> None:
        """Discard the producer and raise what to do."""
        self._count("aborted")
        self.discard()
        refuse(error)
        if error.code() in TOO_LARGE:
            raise MessageError(
                f"A record is larger than Kafka takes: {error.str()}", code="record_too_large"
            )
        fenced = error.code() in FENCED
        raise UnknownOutcomeError(f"{error.name()}: {error.str()}", fenced=fenced)

    def _count(self, result: str) -> None:
        self._metrics.add("funicular_transactions_total", stage=self._stage, result=result)


def start_producer(
    kafka: KafkaSettings, settings: KafkaEngineSettings, transactional_id: str
) -> Producer:
    """Start a producer; what one of the same id left open is ended first.

    RetryableError: the cluster does not answer, or is still ending it. UsageError: refused.
    """
    producer = Producer(producer_options(kafka, settings, transactional_id))
    try:
        producer.init_transactions(settings.call_timeout_s)
    except KafkaException as failed:
        throw_away(producer)
        error = error_of(failed)
        refuse(error)
        raise RetryableError(
            f"Kafka gives no producer to {transactional_id}: {error.str()}", code="kafka"
        ) from None
    return producer


def throw_away(producer: Producer) -> None:
    """Let go of a producer whatever state it is in; it must not wait for brokers."""
    try:
        producer.purge(in_queue=True, in_flight=True, blocking=False)
    except KafkaException as error:
        _log.debug("a producer that is thrown away was not purged", why=str(error_of(error)))
