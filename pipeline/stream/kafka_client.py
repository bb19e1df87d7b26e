"""What our librdkafka clients have in common: their options, and what they complain of.

In: the operator's settings. Out: options for a stage's consumer, its producer, its reader of the
changelog; errors sorted by what is to be done.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.errors import RetryableError, UsageError
from pipeline.logs import get_logger
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import CONFLUENT
from pipeline.stream.settings import MIB

_log = get_logger(__name__)

# librdkafka waits this long to ask again while the coordinator still ends the transaction before:
# at its default of 100 ms a transaction that is refused takes 110 ms, at this 30 ms.
_RETRY_MS = 4
_RETRY_MAX_MS = 500
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's own errors are called so
    }
)
_SAY_EVERY_S = 30.0


class Complaints:
    """Logs what a client complains of: each kind at once, and then now and then."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._said: dict[int, float] = {}
        self.last = ""

    def __call__(self, error: KafkaError) -> None:
        """Take a complaint, in whatever thread serves the client."""
        now = time.monotonic()
        self.last = error.str()
        said = self._said.get(error.code())
        if said is None or now - said > _SAY_EVERY_S:
            self._said[error.code()] = now
            _log.warning("kafka complains", of=self._of, code=error.name(), why=error.str())


def shared_options(kafka: KafkaSettings, of: str) -> dict[str, Any]:
    """Return what every client has."""
    return {
        **kafka.confluent(),
        # What librdkafka would print itself; its complaints come by error_cb.
        "log_level": 0,
        "error_cb": Complaints(of),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        "metadata.max.age.ms": round(kafka.metadata_max_age_s * 1_000),
        "topic.metadata.refresh.interval.ms": round(kafka.metadata_max_age_s * 1_000),
    }


def reader_options(
    kafka: KafkaSettings, settings: KafkaEngineSettings, group: str
) -> dict[str, Any]:
    """Return what both consumers of a stage have: only what is committed, and word of the end."""
    return {
        **shared_options(kafka, group),
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "queued.max.messages.kbytes": max(1, settings.prefetch_bytes // 1_024),
        "fetch.max.bytes": max(settings.prefetch_bytes, MIB),  # a larger record comes all the same
        "fetch.wait.max.ms": 100,
        # A fetch is asked for again at once when the queue has room again.
        "fetch.queue.backoff.ms": 10,
    }


def consumer_options(
    kafka: KafkaSettings, settings: KafkaEngineSettings, group: str
) -> dict[str, Any]:
    """Return what the consumer of a stage's topic has."""
    return {
        **reader_options(kafka, settings, group),
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": round(settings.session_timeout_s * 1_000),
        "heartbeat.interval.ms": round(settings.session_timeout_s * 1_000 / 6),
        "max.poll.interval.ms": round(
            max(settings.poll_interval_max_s, settings.session_timeout_s) * 1_000
        ),
    }


def producer_options(
    kafka: KafkaSettings, settings: KafkaEngineSettings, transactional_id: str
) -> dict[str, Any]:
    """Return what the producer of a stage has."""
    return {
        **shared_options(kafka, transactional_id),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": round(settings.transaction_timeout_s * 1_000),
        "partitioner": CONFLUENT,
        "compression.type": "lz4",
        "message.max.bytes": kafka.record_bytes_max,
        "linger.ms": 2,
        "retry.backoff.ms": _RETRY_MS,
        "retry.backoff.max.ms": _RETRY_MAX_MS,
        "queue.buffering.max.messages": 1_000_000,
    }


def admin_client(kafka: KafkaSettings, of: str) -> AdminClient:
    """Return an admin client."""
    return AdminClient(shared_options(kafka, of))


def error_of(error: KafkaException) -> KafkaError:
    """Return what an exception of the client says."""
    found: KafkaError = error.args[0]
    return found


def refuse(error: KafkaError) -> None:
    """UsageError: the cluster does not know us, or does not let us; no retry would help."""
    if error.code() in _REFUSED:
        raise UsageError(
            f"Kafka refuses: {error.str()} ({error.name()}); check FUNICULAR_KAFKA_… and what"
            " this user may do (ACLs)"
        )


def unreachable(kafka: KafkaSettings, error: KafkaException, complaints: object) -> RetryableError:
    """Return what to say where the cluster gave no answer."""
    last = complaints.last if isinstance(complaints, Complaints) else ""
    why = error_of(error).str()
    hint = f"; {last}" if last and last != why else ""
    return RetryableError(f"Kafka at {kafka.bootstrap}: {why}{hint}", code="kafka")
