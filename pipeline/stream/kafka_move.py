"""Moves from the embedded log to Kafka: brings what the stages keep.

In: an embedded log that nobody works on and in which nothing waits. Out: the same state and timers
in the changelogs on Kafka (`device.state`, `downlink.state`), each on its key's partition, from
which workers restore it at their first start. Records are not moved: what was read stays readable
in the old log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from pipeline import topics
from pipeline.errors import RetryableError, UsageError
from pipeline.stream import database
from pipeline.stream.kafka_changes import Change, part_key, timer_key
from pipeline.stream.kafka_client import error_of, refuse, shared_options
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import partition_of
from pipeline.stream.view import LogView

CALL_TIMEOUT_S = 10.0
# For all that was handed over to be acknowledged.
FLUSH_TIMEOUT_S = 120.0
CHANGELOGS: Mapping[str, str] = {
    topic.writers[0]: topic.name
    for topic in topics.TOPICS
    if topic.compacted and topic.key == "tenant/device#part"
}
"""The changelogs by the stage that writes them."""


class Moved(msgspec.Struct, frozen=True):
    """What was brought for one stage."""

    stage: str
    parts: int
    timers: int


def move_state(
    path: Path, kafka: KafkaSettings, changelogs: Mapping[str, str] = CHANGELOGS
) -> list[Moved]:
    """Bring the state of the log at `path` to Kafka; return what was brought when all of it is
    acknowledged. It may be repeated until workers have run there.

    UsageError: a process has the log; something waits in it; a changelog is missing on Kafka, or a
    stage has worked there already. RetryableError: the cluster does not answer.
    """
    with LogView(path) as view:
        lock = database.OwnerLock(path)
        try:
            _refuse_waiting(path, view)
            admin = AdminClient(shared_options(kafka, "move"))
            counts = _partitions(admin, kafka, changelogs)
            producer = Producer(
                shared_options(kafka, "move")
                | {"enable.idempotence": True, "message.max.bytes": kafka.record_bytes_max}
            )
            found = [
                _Move(producer, path, stage, kafka.topic(name), counts[stage]).run()
                for stage, name in changelogs.items()
            ]
        finally:
            lock.release()
    return found


def _refuse_waiting(path: Path, view: LogView) -> None:
    """Raise where a stage or a sink has not read all. Answers are for requests long gone."""
    waiting = {
        f"{count} for {group} in {topic}"
        for (topic, group), count in view.lag().items()
        if count and topic != topics.REPLY
    }
    if waiting:
        raise UsageError(
            f"Records wait in {path}: {', '.join(sorted(waiting))}; close the door to network"
            " servers, let `funicular run` work them off, stop it, and move then"
        )


def _partitions(
    admin: AdminClient, kafka: KafkaSettings, changelogs: Mapping[str, str]
) -> dict[str, int]:
    """Return the number of partitions of each stage's changelog, where no stage has worked."""
    found = {}
    try:
        known = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
        for stage, name in changelogs.items():
            topic = kafka.topic(name)
            if topic not in known:
                raise UsageError(
                    f"There is no topic {topic} on {kafka.bootstrap}; run `funicular topics create`"
                )
            found[stage] = len(known[topic].partitions)
            _refuse_worked(admin, kafka, stage)
    except KafkaException as failed:
        error = error_of(failed)
        refuse(error)
        raise RetryableError(
            f"Kafka at {kafka.bootstrap} does not answer: {error.str()}", code="kafka"
        ) from None
    return found


def _refuse_worked(admin: AdminClient, kafka: KafkaSettings, stage: str) -> None:
    group = kafka.group(stage)
    asked = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=CALL_TIMEOUT_S
    )
    try:
        offsets = asked[group].result(CALL_TIMEOUT_S).topic_partitions or ()
    except KafkaException as failed:
        if error_of(failed).code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        return
    if any(place.offset >= 0 for place in offsets):
        raise UsageError(
            f"Workers of stage {stage} have run on {kafka.bootstrap} already: their state would be"
            " mixed with this one; name another prefix (kafka://…?prefix=…), and create its topics"
        )


class _Move:
    """One stage's state on its way."""

    def __init__(
        self, producer: Producer, path: Path, stage: str, topic: str, partitions: int
    ) -> None:
        self._producer = producer
        self._path = path
        self._stage = stage
        self._topic = topic
        self._partitions = partitions
        self._failed: KafkaError | None = None

    def run(self) -> Moved:
        parts = sum(self._send(key, change) for key, change in self._parts())
        timers = sum(self._send(key, change) for key, change in self._timers())
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self._failed:
            why = self._failed.str() if self._failed else f"{left} records are not acknowledged"
            raise RetryableError(f"{self._topic}: {why}; begin again", code="kafka")
        return Moved(self._stage, parts, timers)

    def _parts(self) -> Iterator[tuple[str, Change]]:
        for (entry,) in self._rows("SELECT entry FROM state WHERE stage = ?"):
            key, part, value = orjson.loads(entry)
            yield key, Change(part_key(key, part), orjson.dumps(value))

    def _timers(self) -> Iterator[tuple[str, Change]]:
        rows = self._rows("SELECT key, name, due_ms, data FROM timer WHERE stage = ?")
        for key, name, due_ms, data in rows:
            value = orjson.dumps((due_ms, orjson.loads(data)))
            yield key, Change(timer_key(key, name), value)

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        connection = database.connect(self._path)
        try:
            yield from connection.execute(query, (self._stage,))
        finally:
            connection.close()

    def _send(self, key: str, change: Change) -> int:
        partition = partition_of(key, self._partitions)
        while True:
            try:
                self._producer.produce(
                    self._topic, change.value, change.key, partition, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return 1

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        self._failed = self._failed or error
