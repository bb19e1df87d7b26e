"""A stage's membership: what it does with the group's news, on a consumer that is a fake."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from pipeline.metrics import Registry
from pipeline.stream import kafka_group
from pipeline.stream.kafka_group import Group
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_partition import Partition
from pipeline.stream.kafka_settings import KafkaSettings


class Message:
    """A record as librdkafka gives it."""

    def __init__(self, partition: int, offset: int, key: bytes = b"k") -> None:
        self._place = (partition, offset, key)

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def key(self) -> bytes:
        return self._place[2]

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 5


class FakeConsumer:
    """Gives what the test put there, and keeps what it was told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.told: list[tuple[str, list[tuple[int, int]]]] = []
        self.member = "member-1"
        self.generation = 0

    def poll(self, timeout: float) -> Message | None:
        return self.messages.pop(0) if self.messages else None

    def consume(self, count: int, timeout: float) -> list[Message]:
        found, self.messages = self.messages[:count], self.messages[count:]
        return found

    def memberid(self) -> str:
        return self.member

    def consumer_group_metadata(self) -> bytes:
        return f"CGMD:{self.generation}:{self.member}".encode()

    def get_watermark_offsets(self, *arguments: Any, **more: Any) -> None:
        return None

    def seek(self, place: TopicPartition) -> None:
        self.told.append(("seek", [(place.partition, place.offset)]))

    def close(self) -> None:
        self.told.append(("close", []))

    def __getattr__(self, name: str) -> Any:
        def tell(places: list[TopicPartition]) -> None:
            self.told.append((name, [place.partition for place in places]))  # type: ignore[misc]

        return tell


def group(*partitions: int, keyed: bool = False) -> tuple[Group, FakeConsumer, list[Partition]]:
    """Return a group that was given these partitions."""
    dropped: list[Partition] = []
    made = Group(
        KafkaSettings(),
        KafkaEngineSettings(),
        Registry(),
        stage="stage",
        topic="in",
        partitions=4,
        keyed=keyed,
        dropped=dropped.append,
    )
    consumer = FakeConsumer()
    made._consumer = consumer  # type: ignore[assignment]
    made._assigned(consumer, [TopicPartition("in", each) for each in partitions])  # type: ignore[arg-type]
    consumer.told.clear()
    return made, consumer, dropped


def test_a_new_partition_is_read_once_it_is_ready() -> None:
    """A partition waits until its state is here; while a stage backs off none is read."""
    found, consumer, _ = group(0, 1)
    found.read(10, 0)
    assert consumer.told == []
    found.partitions[1].ready()
    found.read(10, 0)
    assert consumer.told == [("resume", [1])]
    found.read(0, 0)
    assert consumer.told[1:] == [("pause", [1])]


def test_a_stray_record_sets_the_reader_back() -> None:
    """What came too early is not handled out of its order: the reader goes to the group's place."""
    for following, start in ((None, OFFSET_BEGINNING), (7, 7)):
        found, consumer, _ = group(2)
        consumer.messages = [Message(2, 99)]
        found.read(10, 0)
        partition = found.partitions[2]
        partition.next = following
        partition.ready()
        consumer.messages = [Message(2, 8)]
        found.read(10, 0)
        assert consumer.told == [("seek", [(2, start)]), ("resume", [2])]
        assert [each.offset for each in partition.waiting] == [8]


def test_a_partition_that_went_is_forgotten() -> None:
    """Records of a partition that is not ours any more go nowhere, and its owner is told."""
    found, consumer, dropped = group(0, 1)
    gone = found.partitions[0]
    found._revoked(consumer, [TopicPartition("in", 0)])  # type: ignore[arg-type]
    consumer.messages = [Message(0, 1)]
    found.read(10, 0)
    assert dropped == [gone]
    assert list(found.partitions) == [1]


def test_who_is_out_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once librdkafka says that it is nobody, or somebody else, nothing may be committed by it."""
    monkeypatch.setattr(kafka_group, "PROOF_S", 0)
    found, consumer, _ = group(0)
    assert found.metadata() == b"CGMD:0:member-1"
    consumer.member = ""
    assert found.metadata() is None
    consumer.member = "member-2"
    assert found.metadata() is None
    found._lost(consumer, [TopicPartition("in", 0)])  # type: ignore[arg-type]
    assert found.metadata() == b"CGMD:0:member-2"


def test_what_is_proof_is_asked_for_now_and_then() -> None:
    """It is kept for a moment, but not beyond the group's news."""
    found, consumer, _ = group(0)
    consumer.generation = 1
    first = found.metadata()
    consumer.generation = 2
    assert found.metadata() == first
    found._assigned(consumer, [])  # type: ignore[arg-type]
    second = found.metadata()
    assert second != first
    consumer.member = "member-2"
    found._lost(consumer, [TopicPartition("in", 0)])  # type: ignore[arg-type]
    assert found.metadata() not in {first, second}


def test_a_misplaced_record_is_marked() -> None:
    """On a topic by device the key says the partition; what stands elsewhere is not handled."""
    found, consumer, _ = group(0, 1, 2, 3, keyed=True)
    for partition in found.partitions.values():
        partition.ready()
    consumer.messages = [Message(number, 0, b"t/device") for number in range(4)]
    found.read(10, 0)
    marked = [bool(each.misplaced) for each in found.partitions.values()]
    assert sorted(marked) == [False, True, True, True]
