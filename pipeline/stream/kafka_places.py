"""What the cluster has for our stages: topics, their partitions, their ends; asked, not read.

In: an admin client and stages. Out: where each stage works, or a UsageError that says which topic
is missing or other than it must be, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import admin as kafka_admin

from pipeline import topics
from pipeline.errors import RetryableError, UsageError
from pipeline.model.dead_letter import DEAD_LETTER_TOPIC
from pipeline.ports import Stage
from pipeline.stream.kafka_client import Complaints, error_of, refuse
from pipeline.stream.kafka_restore import Changelog
from pipeline.stream.kafka_runner import Place
from pipeline.stream.kafka_settings import KafkaSettings

# The documentation has these, the types have not.
_admin: Any = kafka_admin
# A device is on one partition of all of these.
TOGETHER = (
    topics.DEVICE_EVENTS,
    topics.DOWNLINK_REQUESTED,
    topics.DEVICE_STATE,
    topics.DOWNLINK_STATE,
)
_DELETIONS_MS = 86_400_000


def places(
    admin: kafka_admin.AdminClient,
    kafka: KafkaSettings,
    stages: Sequence[Stage],
    timeout_s: float,
    complaints: Complaints,
) -> dict[str, Place]:
    """Return where each stage works, by its name. UsageError: it cannot."""
    try:
        known = admin.list_topics(timeout=timeout_s).topics
    except KafkaException as failed:
        refuse(error_of(failed))
        why = complaints.last or error_of(failed).str()
        raise UsageError(
            f"Kafka at {kafka.bootstrap} does not answer within {timeout_s:.0f} s: {why}"
        ) from None
    counts = {name: len(topic.partitions) for name, topic in known.items()}
    if any(stage.topic in TOGETHER for stage in stages):
        _check_together(kafka, counts)
    found = {}
    for stage in stages:
        _check(kafka, counts, stage)
        changelog = None
        if stage.state_topic is not None:
            changelog = _changelog(admin, kafka.topic(stage.state_topic), timeout_s)
        found[stage.name] = Place(
            counts[kafka.topic(stage.topic)],
            stage.topic in TOGETHER,
            changelog,
            counts.get(kafka.topic(topics.REPLY), 0),
        )
    return found


def _check(kafka: KafkaSettings, counts: Mapping[str, int], stage: Stage) -> None:
    names = [stage.topic, DEAD_LETTER_TOPIC]
    if stage.state_topic is not None:
        names.append(stage.state_topic)
    missing = [kafka.topic(name) for name in names if not counts.get(kafka.topic(name))]
    if missing:
        raise UsageError(
            f"Stage {stage.name}: there is no topic {', '.join(missing)} on {kafka.bootstrap};"
            " make the topics with `funicular topics create`"
        )
    if stage.state_topic is None:
        return
    count, other = (counts[kafka.topic(name)] for name in (stage.topic, stage.state_topic))
    if count != other:
        raise UsageError(
            f"{kafka.topic(stage.topic)} has {count} partitions and"
            f" {kafka.topic(stage.state_topic)} has {other}; they must have the same number, so"
            " that state lies beside what it is of: make the topics again with `funicular topics"
            " create`"
        )


def _check_together(kafka: KafkaSettings, counts: Mapping[str, int]) -> None:
    found = {kafka.topic(name): counts.get(kafka.topic(name), 0) for name in TOGETHER}
    there = {name: count for name, count in found.items() if count}
    if len(set(there.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in there.items())
        raise UsageError(
            "A device is on the same partition of all topics that are by device, so they must"
            f" have the same number of partitions: {said}; see `funicular topics check`"
        )


def _changelog(admin: kafka_admin.AdminClient, topic: str, timeout_s: float) -> Changelog:
    resource = _admin.ConfigResource(_admin.ConfigResource.Type.TOPIC, topic)
    try:
        (config,) = admin.describe_configs([resource], request_timeout=timeout_s).values()
        options = {name: entry.value for name, entry in config.result().items()}
        (described,) = admin.describe_topics(
            TopicCollection([topic]), request_timeout=timeout_s
        ).values()
        topic_id = str(described.result().topic_id)
    except KafkaException as failed:
        refuse(error_of(failed))
        raise UsageError(f"Kafka does not describe {topic}: {error_of(failed).str()}") from None
    if "compact" not in str(options.get("cleanup.policy", "")):
        raise UsageError(
            f"{topic} keeps state, and its cleanup.policy is {options.get('cleanup.policy')}: old"
            " state would be deleted; set it to compact (see `funicular topics check`)"
        )
    kept = int(options.get("delete.retention.ms") or _DELETIONS_MS)
    # A restore takes its time; it must not be overtaken by what the broker forgets meanwhile.
    return Changelog(topic, topic_id, kept // 2)


def ends(
    admin: kafka_admin.AdminClient, topic: str, partitions: Iterable[int], timeout_s: float
) -> dict[int, int]:
    """Return the ends of partitions, what is not yet committed included. RetryableError."""
    asked = {TopicPartition(topic, number): _admin.OffsetSpec.latest() for number in partitions}
    if not asked:
        return {}
    answers = admin.list_offsets(
        asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s
    )
    try:
        return {place.partition: each.result().offset for place, each in answers.items()}
    except KafkaException as failed:
        raise RetryableError(
            f"The ends of {topic} are not known: {error_of(failed).str()}", code="kafka"
        ) from None


def lag(
    admin: kafka_admin.AdminClient,
    kafka: KafkaSettings,
    stage: Stage,
    positions: Mapping[int, int],
    timeout_s: float,
) -> int:
    """Return how many records wait for a stage's group, in all partitions. RetryableError.

    `positions` are those that are known better here than the group's offsets say.
    """
    topic = kafka.topic(stage.topic)
    asked = ConsumerGroupTopicPartitions(kafka.group(stage.name))
    try:
        count = len(admin.list_topics(topic, timeout=timeout_s).topics[topic].partitions)
        (answer,) = admin.list_consumer_group_offsets([asked], request_timeout=timeout_s).values()
        committed = {
            place.partition: place.offset
            for place in answer.result().topic_partitions
            if place.topic == topic
        }
    except KafkaException as failed:
        raise RetryableError(
            f"The offsets of {topic} are not known: {error_of(failed).str()}", code="kafka"
        ) from None
    last = ends(admin, topic, range(count), timeout_s)
    return sum(
        max(0, end - max(committed.get(number, 0), positions.get(number, 0)))
        for number, end in last.items()
    )
