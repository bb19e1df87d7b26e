"""The topics on a Kafka cluster: what they are to be, making them, and what differs.

In: the one table (`pipeline.topics`), the rulebooks (a delivery topic a destination), settings.
Out: plans, new topics, and differences in words. Nothing that exists is ever changed or deleted:
whoever runs the cluster does that, and each difference says how.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from pipeline.errors import RetryableError, UsageError
from pipeline.rulebook.book import Rulebook
from pipeline.stream.kafka_settings import MIB, KafkaSettings
from pipeline.topics import (
    DAY_S,
    DELIVERY_PREFIX,
    DEVICE_EVENTS,
    DEVICE_STATE,
    DOWNLINK_REQUESTED,
    DOWNLINK_STATE,
    RULES,
    SOURCE_CURSOR,
    TOPICS,
    Topic,
    delivery_topic,
    downlink_destination,
    topic_of,
)

TIMEOUT_S = 30.0
STATE_OF = {DEVICE_STATE: DEVICE_EVENTS, DOWNLINK_STATE: DOWNLINK_REQUESTED}
"""A changelog, and the topic whose partitions it must have: their state is kept by partition."""
SHORT_S = DAY_S
"""A retention below this needs segments to match: Kafka deletes whole segments alone."""
SEGMENT_MS_MIN = 600_000
CURSOR_SEGMENT_BYTES = 16 * MIB
RETRY_MARGIN_S = DAY_S
"""How much longer than a destination's last retry its deliveries are kept."""

_COMPARED = ("cleanup.policy", "min.insync.replicas", "max.message.bytes", "message.timestamp.type")


class TopicPlan(msgspec.Struct, frozen=True):
    """What a topic is to be. `name` is ours, `topic` the cluster's; `replication` 0: its default.

    `same_partitions_as` is the cluster's name of another topic. `longest_retry_s` is how long a
    destination tries a delivery; None: it is no delivery topic, or it tries for ever
    (`tries_for_ever`).
    """

    name: str
    topic: str
    partitions: int
    replication: int
    config: dict[str, str]
    same_partitions_as: str | None = None
    longest_retry_s: float | None = None
    tries_for_ever: bool = False


class TopicState(msgspec.Struct, frozen=True):
    """What a topic of the cluster is. `config` has its settings, defaults among them."""

    topic: str
    partitions: int
    replication: int
    config: dict[str, str] = {}


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as planned. An `error` stops workers; a `warning` costs something."""

    topic: str
    level: Literal["error", "warning"]
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.message}; {self.advice}"


def plan(settings: KafkaSettings, books: Iterable[Rulebook] = ()) -> list[TopicPlan]:
    """Return what all topics are to be, those of the rulebooks' destinations among them."""
    found = [_plan(settings, row, row.name) for row in TOPICS if row.name != DELIVERY_PREFIX]
    for name, retry in sorted(destinations(books).items()):
        found.append(_plan(settings, topic_of(name), name, retry))
    return found


def destinations(books: Iterable[Rulebook]) -> dict[str, Any]:
    """Return the delivery topics of the rulebooks: our name → how deliveries there are retried
    (a sink's `retry:`; None where the operator's default counts).
    """
    found: dict[str, Any] = {}
    for book in books:
        for entry in book.sinks.values():
            name = delivery_topic(entry.tenant, entry.name)
            found[name] = getattr(entry.config, "retry", None)
        for integration in book.integrations.values():
            if not integration.synchronous:
                destination = downlink_destination(integration.name)
                found[delivery_topic(integration.tenant, destination)] = None
    return found


def _plan(settings: KafkaSettings, row: Topic, name: str, retry: Any = None) -> TopicPlan:
    config = {"max.message.bytes": str(settings.record_bytes_max)}
    give_up_s = getattr(retry, "give_up_after", None)
    if row.compacted:
        config["cleanup.policy"] = "compact"
        if name == SOURCE_CURSOR:
            # Kafka compacts whole segments alone, and who takes a lease reads all that is left.
            config["segment.bytes"] = str(CURSOR_SEGMENT_BYTES)
    else:
        retention_s: float = row.retention_s
        if give_up_s is not None:
            retention_s = max(retention_s, give_up_s + RETRY_MARGIN_S)
        config["cleanup.policy"] = "delete"
        config["retention.ms"] = str(round(retention_s * 1_000))
        # When a record came is what counts, not what its sender's clock says: a wrong clock would
        # have it deleted at once, or never.
        config["message.timestamp.type"] = "LogAppendTime"
        if retention_s < SHORT_S:
            config["segment.ms"] = str(max(SEGMENT_MS_MIN, round(retention_s * 1_000 / 6)))
    if settings.min_insync_replicas:
        config["min.insync.replicas"] = str(settings.min_insync_replicas)
    twin = STATE_OF.get(name)
    return TopicPlan(
        name=name,
        topic=settings.topic(name),
        partitions=1 if name == RULES else settings.partitions,
        replication=settings.replication,
        config=config,
        same_partitions_as=settings.topic(twin) if twin else None,
        longest_retry_s=give_up_s,
        tries_for_ever=retry is not None and give_up_s is None,
    )


def create(settings: KafkaSettings, plans: Sequence[TopicPlan]) -> list[str]:
    """Make the topics that are not there; return their names on the cluster.

    UsageError: the cluster refuses one (its reason is in it); those before may be made.
    RetryableError: no broker answers.
    """
    admin = AdminClient({**settings.confluent(), "log_level": 0})
    there = _metadata(admin, settings)
    new = [
        NewTopic(
            each.topic,
            num_partitions=each.partitions,
            replication_factor=each.replication or -1,
            config=each.config,
        )
        for each in plans
        if each.topic not in there
    ]
    made: list[str] = []
    if not new:
        return made
    for topic, done in admin.create_topics(new, operation_timeout=TIMEOUT_S).items():
        try:
            done.result(2 * TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise UsageError(f"The topic {topic} cannot be made: {_said(error)}") from None
        except TimeoutError:
            raise RetryableError(f"The topic {topic} was not made in time") from None
        else:
            made.append(topic)
    return made


def remove(settings: KafkaSettings, plans: Sequence[TopicPlan]) -> None:
    """Take topics off the cluster, with all that is in them. RetryableError: one is still there."""
    admin = AdminClient({**settings.confluent(), "log_level": 0})
    names = [each.topic for each in plans]
    for topic, done in admin.delete_topics(names, operation_timeout=TIMEOUT_S).items():
        try:
            done.result(2 * TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise RetryableError(
                    f"The topic {topic} cannot be removed: {_said(error)}"
                ) from None
        except TimeoutError:
            raise RetryableError(f"The topic {topic} was not removed in time") from None


def look(settings: KafkaSettings, topics: Iterable[str] | None = None) -> list[TopicState]:
    """Return what topics are: those of these names on the cluster that are there (None: all that
    have our prefix and the name of one of ours), by name.

    RetryableError: no broker answers. UsageError: it does not let us see them.
    """
    admin = AdminClient({**settings.confluent(), "log_level": 0})
    there = _metadata(admin, settings)
    wanted = sorted(there.keys() & set(topics)) if topics is not None else _ours(settings, there)
    if not wanted:
        return []
    asked = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, topic) for topic in wanted], request_timeout=TIMEOUT_S
    )
    found = []
    for resource, answer in asked.items():
        try:
            entries = answer.result(2 * TIMEOUT_S)
        except KafkaException as error:
            raise UsageError(f"{resource.name} cannot be looked at: {_said(error)}") from None
        partitions, replication = there[resource.name]
        config = {name: str(entry.value) for name, entry in entries.items()}
        found.append(TopicState(resource.name, partitions, replication, config))
    return sorted(found, key=lambda state: state.topic)


def check(settings: KafkaSettings, plans: Sequence[TopicPlan]) -> list[Difference]:
    """Return what is not as planned; errors first. Raises as `look`."""
    return compare(plans, look(settings, [each.topic for each in plans]))


def require(settings: KafkaSettings, plans: Sequence[TopicPlan]) -> list[Difference]:
    """Return the warnings. UsageError: there are errors; all of them are in it."""
    found = check(settings, plans)
    errors = [str(each) for each in found if each.level == "error"]
    if errors:
        raise UsageError("Kafka's topics are not as they must be:\n" + "\n".join(errors))
    return found


def compare(plans: Sequence[TopicPlan], states: Iterable[TopicState]) -> list[Difference]:
    """Return what is not as planned; errors first. Pure."""
    there = {state.topic: state for state in states}
    found: list[Difference] = []
    for each in plans:
        state = there.get(each.topic)
        if state is None:
            found.append(
                Difference(
                    each.topic, "error", "is missing", "make it with `funicular topics create`"
                )
            )
            continue
        found += _partitions(each, state, there)
        found += _copies(each, state)
        found += _config(each, state)
        found += _retention(each, state)
    return sorted(found, key=lambda difference: (difference.level, difference.topic))


def _partitions(
    each: TopicPlan, state: TopicState, there: Mapping[str, TopicState]
) -> Iterator[Difference]:
    twin = there.get(each.same_partitions_as or "")
    if twin is not None and twin.partitions != state.partitions:
        yield Difference(
            each.topic,
            "error",
            f"has {state.partitions} partitions and {twin.topic} has {twin.partitions}; they must"
            " be equal, since state is kept by partition",
            "stop the workers, delete the one with wrong partitions and make it anew (a changelog"
            " that is deleted loses its state), or begin with another prefix",
        )
    elif state.partitions != each.partitions:
        yield Difference(
            each.topic,
            "warning",
            f"has {state.partitions} partitions, not {each.partitions}",
            f"set `partitions` to {state.partitions}, or leave it: only the order of what is"
            " there now and what comes later would suffer from a change",
        )


def _copies(each: TopicPlan, state: TopicState) -> Iterator[Difference]:
    if each.replication and state.replication < each.replication:
        yield Difference(
            each.topic,
            "warning",
            f"is kept {state.replication} times, not {each.replication}",
            "raise it with kafka-reassign-partitions",
        )
    least = _whole(state.config.get("min.insync.replicas"))
    if least is not None and least > state.replication:
        yield Difference(
            each.topic,
            "error",
            f"is kept {state.replication} times, and a write needs {least} (min.insync.replicas):"
            " none can succeed",
            _alter(each.topic, "min.insync.replicas", str(state.replication)),
        )
    elif least == 1 and state.replication > 1 and "min.insync.replicas" not in each.config:
        yield Difference(
            each.topic,
            "warning",
            f"is kept {state.replication} times, but a write counts as durable when one broker has"
            " it (min.insync.replicas 1): its disk's loss loses what was answered 2xx",
            _alter(each.topic, "min.insync.replicas", "2"),
        )


def _config(each: TopicPlan, state: TopicState) -> Iterator[Difference]:
    for name in _COMPARED:
        wanted, has = each.config.get(name), state.config.get(name)
        if wanted is None or has is None or wanted == has:
            continue
        if name == "max.message.bytes" and int(has) >= int(wanted):
            continue
        # What is deleted from a changelog is state that is lost; a compacted topic of events
        # forgets events that were not handled.
        level: Literal["error", "warning"] = "error" if name == "cleanup.policy" else "warning"
        yield Difference(
            each.topic, level, f"has {name} {has}, not {wanted}", _alter(each.topic, name, wanted)
        )


def _retention(each: TopicPlan, state: TopicState) -> Iterator[Difference]:
    wanted = _whole(each.config.get("retention.ms"))
    has = _whole(state.config.get("retention.ms"))
    if wanted is None or has is None or has < 0 or "delete" not in _policy(state):
        return
    kept_s = has / 1_000
    if each.longest_retry_s is not None and kept_s <= each.longest_retry_s:
        yield Difference(
            each.topic,
            "error",
            f"is kept for {_span(kept_s)}, but its sink tries for {_span(each.longest_retry_s)}"
            " (retry.give_up_after): deliveries would be lost without a dead letter",
            _alter(each.topic, "retention.ms", str(wanted)),
        )
    elif has < wanted:
        yield Difference(
            each.topic,
            "warning",
            f"is kept for {_span(kept_s)}, not {_span(wanted / 1_000)}",
            _alter(each.topic, "retention.ms", str(wanted)),
        )
    if each.tries_for_ever:
        yield Difference(
            each.topic,
            "warning",
            f"its sink tries for ever, but what is older than {_span(kept_s)} is deleted",
            f"set retry.give_up_after of the sink below {_span(kept_s)}, so that what cannot be"
            " delivered becomes a dead letter",
        )


def _alter(topic: str, name: str, value: str) -> str:
    return f"kafka-configs --alter --topic {topic} --add-config {name}={value}"


def _policy(state: TopicState) -> set[str]:
    return set(state.config.get("cleanup.policy", "delete").split(","))


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None


def _span(seconds: float) -> str:
    for size, unit in ((DAY_S, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:g} seconds"


def _ours(settings: KafkaSettings, there: Iterable[str]) -> list[str]:
    """Return the topics of the cluster that are named as ours are."""
    names = tuple(row.name for row in TOPICS if row.name != DELIVERY_PREFIX)
    found = []
    for topic in there:
        if topic.startswith(settings.prefix):
            name = settings.name(topic)
            if name in names or name.startswith(DELIVERY_PREFIX):
                found.append(topic)
    return sorted(found)


def _metadata(admin: AdminClient, settings: KafkaSettings) -> dict[str, tuple[int, int]]:
    """Return all topics: partitions, and how often each is kept."""
    try:
        found = admin.list_topics(timeout=settings.connect_timeout_s).topics
    except KafkaException as error:
        raise RetryableError(
            f"No broker of {settings.bootstrap} lets us in: {_said(error)}", code="log_unreachable"
        ) from None
    return {
        name: (
            len(topic.partitions),
            min((len(part.replicas) for part in topic.partitions.values()), default=0),
        )
        for name, topic in found.items()
    }


def _said(error: KafkaException) -> str:
    return str(error.args[0].str())
