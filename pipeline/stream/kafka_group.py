"""A stage's membership in its consumer group: which partitions are ours, and what waits there.

In: the stage's topic, and the group's word on who has which partition (cooperative: partitions
that stay are not interrupted). Out: partitions with their records. A partition that is new is read
only once its state is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from pipeline.errors import RetryableError, UsageError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.record import Record
from pipeline.stream.kafka_client import consumer_options, error_of, refuse
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_partition import Partition, Phase
from pipeline.stream.kafka_records import header_texts, key_text
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import partition_of

_log = get_logger(__name__)
_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own errors are called so

# For a look that only serves a log line.
_LOOK_S = 1.0

PROOF_S = 0.1
"""How long what proves our membership is kept. To ask for it is to wait for librdkafka's own thread
with the interpreter's lock held: with small transactions on busy cores all threads of the process
stood still for 5 % of the time."""


class Group:
    """One consumer and its partitions. One thread uses it; callbacks come in `read` and `close`.

    `dropped` is called with each partition that is not ours any more.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: KafkaEngineSettings,
        metrics: Registry,
        *,
        stage: str,
        topic: str,
        partitions: int,
        keyed: bool,
        dropped: Callable[[Partition], None],
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._metrics = metrics
        self._stage = stage
        self._name = topic
        self._count = partitions
        self._keyed = keyed
        self._dropped = dropped
        self._member = ""
        self._proof: object | None = None
        self._proven = 0.0
        self._fault: UsageError | None = None
        self._consumer: Consumer | None = None
        self.topic = kafka.topic(topic)
        self.partitions: dict[int, Partition] = {}
        self.joined = False

    def open(self) -> None:
        """Join the group."""
        options = consumer_options(self._kafka, self._settings, self._kafka.group(self._stage))
        self._consumer = Consumer(options)
        self._consumer.subscribe(
            [self.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def close(self) -> None:
        """Leave the group; the others need not wait until we are missed."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        self._drop(list(self.partitions))
        self._proof = None
        self.joined = False

    def read(self, room: int, timeout_s: float) -> None:
        """Take in up to `room` records, and the group's news; wait for the first of them.

        `room` 0: news alone. UsageError: refused, or the topic has other partitions now.
        """
        consumer = self._open_consumer()
        self._pause(held=room == 0)
        first = consumer.poll(timeout_s)
        if self._fault is not None:
            raise self._fault
        if first is None:
            return
        self._take(first)
        if room > 1:
            for message in consumer.consume(room - 1, 0):
                self._take(message)
        if self._fault is not None:
            raise self._fault

    def metadata(self) -> object | None:
        """Return what proves to the brokers that our partitions are ours.

        None: they are not any more, though the news has not come yet. librdkafka, once it knows
        that it is out, says that it is nobody; and of somebody who says so and names no generation
        brokers check nothing at all. What was proof `PROOF_S` ago is given again: brokers refuse it
        where it is none any more.
        """
        if self._proof is not None and time.monotonic() < self._proven + PROOF_S:
            return self._proof
        self._proof = None
        consumer = self._open_consumer()
        found: Any = consumer.consumer_group_metadata()
        member = self._member or consumer.memberid() or ""
        if not member or member.encode() not in found:
            return None
        self._proof, self._proven = found, time.monotonic()
        return self._proof

    def locate(self, partitions: Iterable[Partition]) -> None:
        """Read where the group stands in these; waits for transactions that are not ended yet.

        RetryableError: not known now.
        """
        consumer = self._open_consumer()
        wanted = {partition.number: partition for partition in partitions}
        asked = [TopicPartition(self.topic, number) for number in wanted]
        try:
            places = consumer.committed(asked, self._settings.call_timeout_s)
            for place in places:
                if place.error is not None:
                    raise KafkaException(place.error)
                offset = place.offset if place.offset != OFFSET_INVALID else None
                partition = wanted[place.partition]
                if offset is not None and partition.floor == 0:
                    self._check_kept(consumer, place.partition, offset)
                partition.locate(offset, place.metadata)
        except KafkaException as failed:
            error = error_of(failed)
            refuse(error)
            raise RetryableError(
                f"The group's offsets in {self.topic} are not known: {error.str()}", code="kafka"
            ) from None

    def _check_kept(self, consumer: Consumer, partition: int, offset: int) -> None:
        """Say it loudly where records are gone that were never handled."""
        place = TopicPartition(self.topic, partition)
        ends = consumer.get_watermark_offsets(place, _LOOK_S)
        if ends is not None and ends[0] > offset:
            _log.error(
                "records were deleted before they were handled; the topic's retention is shorter"
                " than the time that the stage was away",
                topic=self.topic,
                partition=partition,
                lost=ends[0] - offset,
            )

    def report_lag(self) -> None:
        """Set the gauges of what waits, as far as it is known without asking."""
        consumer = self._open_consumer()
        for partition in self.partitions.values():
            place = TopicPartition(self.topic, partition.number)
            ends = consumer.get_watermark_offsets(place, cached=True)
            if ends is not None and ends[1] >= 0:
                self._lag(partition.number, max(0, ends[1] - partition.position))

    def _lag(self, partition: int, records: int) -> None:
        self._metrics.set(
            "funicular_lag_records",
            records,
            topic=self._name,
            group=self._stage,
            partition=str(partition),
        )

    def _open_consumer(self) -> Consumer:
        if self._consumer is None:
            self.open()
            assert self._consumer is not None
        return self._consumer

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            self._news(message, error)
            return
        partition = self.partitions.get(message.partition())
        if partition is None:
            return
        headers = message.headers()
        key = key_text(message.key())
        record = Record(
            self._name,
            partition.number,
            message.offset(),
            message.timestamp()[1],
            key,
            message.value(),
            header_texts(headers) if headers else {},
        )
        misplaced = self._keyed and partition_of(key, self._count) != partition.number
        partition.take(record, misplaced=misplaced)

    def _news(self, message: Any, error: KafkaError) -> None:
        if error.code() == _EOF:
            partition = self.partitions.get(message.partition())
            if partition is not None:
                partition.end = message.offset()
            return
        refuse(error)
        _log.warning("reading a topic failed", topic=self.topic, code=error.name(), why=error.str())
        if error.fatal():
            # Nothing but a new consumer helps; what is not committed is read again.
            self.close()

    def _pause(self, *, held: bool) -> None:
        """Have only those partitions read whose records can be handled."""
        consumer = self._open_consumer()
        pause: list[TopicPartition] = []
        resume: list[TopicPartition] = []
        for partition in self.partitions.values():
            paused = held or partition.phase is not Phase.READY
            if partition.stray and not paused:
                partition.stray = False
                start = OFFSET_BEGINNING if partition.next is None else partition.next
                consumer.seek(TopicPartition(self.topic, partition.number, start))
            if paused != partition.paused:
                partition.paused = paused
                (pause if paused else resume).append(TopicPartition(self.topic, partition.number))
        if pause:
            consumer.pause(pause)
        if resume:
            consumer.resume(resume)

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.incremental_assign(places)
        if places:
            consumer.pause(places)
        self.joined = True
        self._member = consumer.memberid() or ""
        self._proof = None
        for place in places:
            if place.partition >= self._count:
                self._fault = UsageError(
                    f"{self.topic} has more than the {self._count} partitions that it had when"
                    " this worker started, so keys are on other partitions than their state;"
                    " a topic's partitions cannot be changed: make topics under a new prefix"
                )
            self.partitions[place.partition] = Partition(place.partition)
        self._told("assigned", places)

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._drop(place.partition for place in places)
        consumer.incremental_unassign(places)
        self._told("revoked", places)

    def _lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._member = ""
        self._proof = None
        self._drop(place.partition for place in places)
        consumer.incremental_unassign(places)
        self._told("lost", places)

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            partition = self.partitions.pop(number, None)
            if partition is not None:
                self._dropped(partition)
                self._lag(number, 0)

    def _told(self, kind: str, places: list[TopicPartition]) -> None:
        self._metrics.add("funicular_rebalances_total", stage=self._stage, kind=kind)
        self._metrics.set("funicular_partitions", len(self.partitions), stage=self._stage)
        if places:
            _log.info(
                f"partitions {kind}",
                stage=self._stage,
                partitions=sorted(place.partition for place in places),
                now=len(self.partitions),
            )
