"""Deleting what is old or too much, and never what somebody still needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import topics
from pipeline.errors import StorageFullError
from pipeline.model.record import Outgoing
from pipeline.stream import LogSettings, SqliteLog

DAY_MS = topics.DAY_S * 1000
WAIT_S = 10


class Stand:
    """A log under a clock that stands, with upkeep without pause."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_ms = 1_700_000_000_000
        self.log: SqliteLog

    def open(self, retention_s: dict[str, float] | None = None, **settings: Any) -> SqliteLog:
        given = LogSettings(
            upkeep_every_s=0.005,
            disk_free_bytes_min=0,
            # Older than now at once.
            retention_s={"settle": -1, **(retention_s or {})},
            **settings,
        )
        self.log = SqliteLog.open(self.path, given, clock=lambda: self.now_ms)
        return self.log

    def until(self, ready: Callable[[], bool]) -> None:
        """Wait for the committer to have done something; fail if it does not."""
        for _ in range(WAIT_S * 100):
            # Sizes change without a commit, so look again now and then.
            if self.log.catalogue.wait(ready, 0.01):
                return
        pytest.fail("upkeep did not do it")

    def offsets(self, topic: str) -> list[int]:
        return [record.offset for record in self.log.scan(topic, limit=100_000)]

    def first(self, topic: str) -> int:
        found = self.log.catalogue.topic(topic)
        assert found is not None
        return found.first

    def settle(self) -> None:
        """Wait for three rounds of upkeep, told by a topic that is deleted at once."""
        for _ in range(3):
            self.fill("settle", 1)
            end = self.log.last_offset("settle") + 1
            self.until(lambda end=end: self.first("settle") == end)  # type: ignore[misc]

    def fill(self, topic: str, count: int, size: int = 10) -> None:
        for _ in range(count):
            self.log.append_blocking([Outgoing(topic, "k", b"x" * size, {})])

    def commit(self, topic: str, group: str, offset: int) -> None:
        async def story() -> None:
            reader = self.log.read(topic, group)
            await reader.commit(offset)
            await reader.close()

        asyncio.run(story())


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A log that is closed at the end."""
    found = Stand(tmp_path / "log.db")
    yield found
    found.log.close()


def test_old_records_that_all_have_read_are_deleted(stand: Stand) -> None:
    """Past the topic's age, what every group has read goes, and nothing after it."""
    stand.open()
    stand.log.register("uplink.received", "convert")
    stand.fill("uplink.received", 10)
    stand.commit("uplink.received", "convert", 5)
    stand.now_ms += 8 * DAY_MS
    stand.until(lambda: stand.first("uplink.received") == 6)
    assert stand.offsets("uplink.received") == [6, 7, 8, 9]


def test_young_records_stay(stand: Stand) -> None:
    """Within the topic's age nothing is deleted, though all have read it."""
    stand.open()
    stand.fill("uplink.received", 5)
    stand.commit("uplink.received", "convert", 4)
    stand.now_ms += 6 * DAY_MS
    stand.settle()
    assert stand.offsets("uplink.received") == [0, 1, 2, 3, 4]


def test_unread_records_are_never_deleted(stand: Stand) -> None:
    """Neither age nor size takes what one group of several has not read, also after a restart."""
    stand.open(topic_bytes_max=100)
    stand.log.register("device.events", "slow")
    stand.fill("device.events", 10, size=100)
    stand.commit("device.events", "fast", 9)
    stand.now_ms += 100 * DAY_MS
    stand.settle()
    assert stand.offsets("device.events") == list(range(10))
    stand.log.close()
    stand.open(topic_bytes_max=100)
    stand.settle()
    assert stand.offsets("device.events") == list(range(10))


def test_a_group_that_is_forgotten_keeps_nothing(stand: Stand) -> None:
    """Records that only a removed group had not read may go."""
    stand.open()
    stand.log.register("delivery.t.gone", "sink-t-gone")
    stand.fill("delivery.t.gone", 3)
    stand.now_ms += 8 * DAY_MS
    asyncio.run(stand.log.forget("delivery.t.gone", "sink-t-gone"))
    stand.until(lambda: stand.first("delivery.t.gone") == 3)
    assert stand.log.positions() == {}


def test_a_topic_that_nobody_reads_goes_by_its_own_age(stand: Stand) -> None:
    """Dead letters stay for their 30 days and go then."""
    stand.open()
    stand.fill("dead.letter", 2)
    stand.now_ms += 29 * DAY_MS
    stand.settle()
    assert stand.offsets("dead.letter") == [0, 1]
    stand.now_ms += 2 * DAY_MS
    stand.until(lambda: stand.first("dead.letter") == 2)


def test_retention_can_be_set(stand: Stand) -> None:
    """A topic's age is the operator's, by its name or by the prefix of delivery topics."""
    stand.open(retention_s={"dead.letter": 10, "delivery.": 20})
    stand.fill("dead.letter", 1)
    stand.fill("delivery.t.a", 1)
    stand.now_ms += 15_000
    stand.until(lambda: stand.first("dead.letter") == 1)
    stand.settle()
    assert stand.offsets("delivery.t.a") == [0]
    stand.now_ms += 10_000
    stand.until(lambda: stand.first("delivery.t.a") == 1)


def test_a_topic_is_kept_below_its_size(stand: Stand) -> None:
    """Over `topic_bytes_max`, the oldest of what all have read goes before its age."""
    stand.open(topic_bytes_max=5_000)
    stand.log.register("uplink.received", "convert")
    stand.fill("uplink.received", 20, size=1_000)
    stand.commit("uplink.received", "convert", 19)
    stand.until(lambda: stand.first("uplink.received") == 16)
    assert stand.offsets("uplink.received") == [16, 17, 18, 19]


def test_a_compacted_topic_is_kept(stand: Stand) -> None:
    """Rules are not deleted by age or size: their last versions are needed for ever."""
    stand.open(topic_bytes_max=10)
    stand.fill("rules", 3)
    stand.now_ms += 100 * DAY_MS
    stand.settle()
    assert stand.offsets("rules") == [0, 1, 2]


def test_offsets_are_never_given_twice(stand: Stand) -> None:
    """After retention deleted a topic's tail and the log was opened anew, offsets go on."""
    stand.open()
    stand.fill("dead.letter", 3)
    stand.now_ms += 31 * DAY_MS
    stand.until(lambda: stand.first("dead.letter") == 3)
    stand.log.close()
    stand.open()
    assert stand.log.last_offset("dead.letter") == 2
    stand.fill("dead.letter", 1)
    assert stand.offsets("dead.letter") == [3]


def test_a_reader_from_the_end_keeps_records_while_it_is_open(stand: Stand) -> None:
    """What it has not read stays; once it is closed nobody comes back for it."""
    stand.open(abandoned_s=60)
    reader = stand.log.read("reply", "ingest-1", from_end=True)
    stand.fill("reply", 2)
    stand.now_ms += DAY_MS
    stand.settle()
    assert stand.offsets("reply") == [0, 1]
    asyncio.run(reader.close())
    stand.until(lambda: stand.first("reply") == 2)
    stand.until(lambda: stand.log.positions() == {})


def test_the_file_shrinks(stand: Stand) -> None:
    """Pages that retention freed go back to the disk."""
    stand.open(checkpoint_pages=100)
    stand.fill("dead.letter", 40, size=100_000)
    stand.log.close()
    before = stand.path.stat().st_size
    assert before > 4_000_000
    stand.now_ms += 31 * DAY_MS
    stand.open(checkpoint_pages=100)
    stand.until(lambda: stand.first("dead.letter") == 40 and stand.log.size_bytes < 200_000)
    stand.settle()
    stand.log.close()
    assert stand.path.stat().st_size < before / 2


def test_a_full_log_refuses_appends_and_keeps_what_is_unread(stand: Stand) -> None:
    """At `log_bytes_max` an append gets StorageFullError, and nothing that waits is deleted."""
    stand.open(log_bytes_max=500_000)
    stand.log.register("uplink.received", "convert")
    with pytest.raises(StorageFullError, match="log_bytes_max"):
        stand.fill("uplink.received", 100, size=20_000)
    written = stand.log.last_offset("uplink.received") + 1
    assert 10 < written < 26
    assert stand.offsets("uplink.received") == list(range(written))


def test_a_full_log_recovers_when_records_were_read(stand: Stand) -> None:
    """Under pressure what all have read goes before its age, and appends are taken again."""
    stand.open(log_bytes_max=500_000)
    stand.log.register("uplink.received", "convert")
    with pytest.raises(StorageFullError):
        stand.fill("uplink.received", 100, size=20_000)
    last = stand.log.last_offset("uplink.received")
    stand.commit("uplink.received", "convert", last)
    with pytest.raises(StorageFullError):
        stand.fill("uplink.received", 1, size=200_000)
    stand.until(lambda: stand.first("uplink.received") > 0)
    stand.until(lambda: stand.log.size_bytes < 480_000)
    stand.fill("uplink.received", 1, size=1_000)
    assert stand.log.last_offset("uplink.received") == last + 1
