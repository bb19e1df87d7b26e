"""The topic `rules`: publishes a checked folder to it, and follows it on a worker.

In: a folder's files; or the topic's records. Out: records, one version a transaction, so that two
who publish at once do not mix; or a folder for each version that is complete. Partition 0 alone is
used: a version's files and manifest have one order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as Place

from pipeline.errors import RetryableError, UsageError
from pipeline.logs import get_logger
from pipeline.model.record import RULES_VERSION, SCHEMA, SCHEMA_VERSION, TENANT
from pipeline.rulebook.book import Rulebook
from pipeline.stream.kafka_client import Complaints, error_of, refuse, shared_options, unreachable
from pipeline.stream.kafka_records import key_text
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_topics import create, look, plan
from pipeline.stream.rules_versions import Publication, RulesVersions, VersionFolders
from pipeline.topics import DELIVERY_PREFIX, DEVICE_EVENTS, RULES

READ_RECORDS_MAX = 500
READ_S = 0.2
PUBLISH_TIMEOUT_S = 60.0
_MISSING = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own errors are called so
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
_FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
    }
)
_log = get_logger(__name__)


class RulesReader:
    """Reads the topic from its beginning, for one thread at a time."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.versions = RulesVersions()
        self.at_end = False
        self.end = 0  # the topic's end, when it was there last
        self.missing = False  # the topic is not there
        self._complaints = Complaints("rules")
        self._consumer = Consumer(
            shared_options(kafka, "rules")
            | {
                "error_cb": self._complaints,
                "group.id": kafka.group("rules"),  # no member of it: nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign([Place(kafka.topic(RULES), 0, OFFSET_BEGINNING)])

    @property
    def trouble(self) -> str:
        """What the client complained of last."""
        return self._complaints.last

    def read(self, timeout_s: float) -> None:
        """Take what comes in the time; `at_end` says whether that is all there is.

        UsageError: the cluster does not let us read it.
        """
        for record in self._consumer.consume(READ_RECORDS_MAX, timeout_s):
            error = record.error()
            if error is None:
                self.at_end = self.missing = False
                self.versions.take(key_text(record.key()), record.value(), record.offset() or 0)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own
                self.at_end, self.missing = True, False
                self.end = record.offset() or 0
            elif error.code() in _MISSING:
                self.at_end, self.missing = False, True
            else:
                refuse(error)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


class RulesFollower:
    """The topic as a source of rules (`rulebook.watch.RulesSource`): each complete version becomes
    a folder below `folder`, named by its tenant.
    """

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self._topic = kafka.topic(RULES)
        self._reader = RulesReader(kafka)
        self._folders = VersionFolders(folder)
        self._said_missing = False
        self._lock = threading.Lock()  # no client may be closed while it reads
        self._closed = False

    def changed(self) -> Mapping[str, Path | None]:
        """Read on; at the topic's end return the tenants whose newest version is complete and was
        not returned before. Where the cluster is away there is nothing new. UsageError: it does
        not let us read the topic.
        """
        with self._lock:
            return {} if self._closed else self._news()

    def steady(self, _: str) -> bool:
        """Return True: a version's folder never changes."""
        return True

    def place(self, versions: Mapping[str, str]) -> int:
        """Return how far the topic is in force where these versions are, by tenant: up to its end,
        or to the first version that is newer.
        """
        return min([self._reader.end, *self._reader.versions.newer(versions)])

    def close(self) -> None:
        """Disconnect. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._reader.close()

    def _news(self) -> dict[str, Path | None]:
        self._reader.read(READ_S)
        if self._reader.missing and not self._said_missing:
            _log.warning(
                "there is no topic of rules; `funicular publish` makes it", topic=self._topic
            )
        self._said_missing = self._reader.missing
        return self._folders.news(self._reader.versions) if self._reader.at_end else {}


def publish(
    kafka: KafkaSettings, tenant: str, version: str, contents: Mapping[str, bytes]
) -> Publication | None:
    """Make these files the newest version of a tenant's rules; None: they are already. Returns when
    all in-sync replicas have it. Who publishes the same tenant at the same time is refused.

    UsageError: a path or file that cannot be published, the cluster refuses, another publishes.
    RetryableError: no answer in `PUBLISH_TIMEOUT_S`; nothing of it counts.
    """
    complaints = Complaints("publish")
    producer = Producer(
        shared_options(kafka, "publish")
        | {
            "error_cb": complaints,
            "transactional.id": kafka.group(f"publish-{tenant}"),
            "message.max.bytes": kafka.record_bytes_max,
        }
    )
    try:
        # First, so that who publishes at the same time can commit no more once we read.
        producer.init_transactions(PUBLISH_TIMEOUT_S)
        found = _read_all(kafka).publication(tenant, version, contents)
        if found is None:
            return None
        producer.begin_transaction()
        _send(producer, kafka, tenant, found)
        producer.commit_transaction(PUBLISH_TIMEOUT_S)
    except KafkaException as failed:
        error = error_of(failed)
        refuse(error)
        if error.code() in _FENCED:
            raise UsageError(
                f"somebody else publishes rules of `{tenant}` just now; look at theirs, then"
                " publish again"
            ) from None
        raise unreachable(kafka, failed, complaints) from None
    return found


def create_rules_topic(kafka: KafkaSettings) -> list[str]:
    """Make the topic where it is not there. Raises as `kafka_topics.create`."""
    return create(kafka, [each for each in plan(kafka) if each.name == RULES])


def create_deliveries(kafka: KafkaSettings, books: Iterable[Rulebook]) -> list[str]:
    """Make the delivery topics of the rules that are not there, with as many partitions as
    `device.events` has; return their names. Raises as `kafka_topics.create`.
    """
    found = look(kafka, [kafka.topic(DEVICE_EVENTS)])
    if found:
        kafka = replace(kafka, partitions=found[0].partitions)
    plans = [each for each in plan(kafka, books) if each.name.startswith(DELIVERY_PREFIX)]
    made = create(kafka, plans)
    if made:
        _log.info("topics of new destinations are made", topics=made)
    return made


def _read_all(kafka: KafkaSettings) -> RulesVersions:
    reader = RulesReader(kafka)
    deadline = time.monotonic() + PUBLISH_TIMEOUT_S
    try:
        while not reader.at_end:
            if time.monotonic() > deadline:
                why = "it is not there" if reader.missing else reader.trouble or "no answer in time"
                raise RetryableError(
                    f"the topic {kafka.topic(RULES)} cannot be read: {why}", code="kafka"
                )
            reader.read(READ_S)
        return reader.versions
    finally:
        reader.close()


def _send(producer: Producer, kafka: KafkaSettings, tenant: str, found: Publication) -> None:
    headers: dict[str, str | bytes | None] = {
        TENANT: tenant,
        RULES_VERSION: found.manifest.version,
        SCHEMA_VERSION: SCHEMA,
    }
    topic = kafka.topic(RULES)
    for key, value in found.records:
        try:
            producer.produce(topic, value, key, 0, headers=headers)
        except KafkaException as failed:
            if error_of(failed).code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            producer.abort_transaction(PUBLISH_TIMEOUT_S)
            raise UsageError(
                f"{key} is larger than a record may be ({kafka.record_bytes_max:,} bytes:"
                " kafka://…?record_bytes_max=)"
            ) from None
        except BufferError:
            producer.flush(PUBLISH_TIMEOUT_S)
            producer.produce(topic, value, key, 0, headers=headers)
