"""A partition on Kafka: what waits, what is next, what is forgotten when it is committed."""

from __future__ import annotations

from pipeline.model.record import Record
from pipeline.ports import DueTimer
from pipeline.stream.kafka_partition import Partition, Phase


def record(offset: int, size: int = 10) -> Record:
    return Record("in", 0, offset, 0, "k", bytes(size), {})


def partition(*offsets: int) -> Partition:
    made = Partition(0)
    made.ready()
    for offset in offsets:
        made.take(record(offset), misplaced=False)
    return made


def test_what_was_read_before_is_not_taken_twice() -> None:
    """A record that comes a second time, or is committed already, is left out."""
    found = partition(3, 4, 4, 3, 5)
    assert [each.offset for each in found.waiting] == [3, 4, 5]
    found.locate(5, None)
    assert [each.offset for each in found.waiting] == [5]
    found.take(record(4), misplaced=False)
    assert [each.offset for each in found.waiting] == [5]


def test_time_is_kept_beside_the_offset() -> None:
    """The time of a partition goes with its offset, never back, and is not needed."""
    found = Partition(0)
    found.now_ms = 50
    other = Partition(0)
    other.locate(7, found.metadata)
    assert other.now_ms == 50
    other.locate(7, '{"now_ms":20}')
    other.locate(7, "by hand")
    other.locate(7, "")
    assert (other.now_ms, other.next, other.position) == (50, 7, 7)


def test_older_rules_wait() -> None:
    """How far the rules were goes with the offset; a partition is held where ours are behind that,
    and goes on when they have come; each change is news once.
    """
    found = Partition(0)
    found.rules = 7
    other = Partition(0)
    other.locate(1, found.metadata)
    other.ready()
    assert (other.hold(6), other.phase, other.hold(6)) == (True, Phase.HELD, False)
    assert (other.hold(7), other.phase, other.hold(8)) == (True, Phase.READY, False)


def test_a_portion_keeps_to_the_limits() -> None:
    """Records and bytes are limited, and one record comes however large it is."""
    found = partition()
    for offset in range(5):
        found.take(record(offset, 1_000), misplaced=False)
    assert found.portion(10_000, 3, ()).taken == 3
    assert found.portion(2_500, 99, ()).taken == 2
    assert found.portion(1, 99, ()).taken == 1


def test_misplaced_records_are_set_apart() -> None:
    """What is on the wrong partition is not handed to the stage, and counts as taken."""
    found = partition()
    for offset in range(4):
        found.take(record(offset), misplaced=offset == 2)
    portion = found.portion(10_000, 99, ())
    assert [each.offset for each in portion.records] == [0, 1, 3]
    assert [each.offset for each in portion.misplaced] == [2]
    assert portion.taken == 4
    found.taken(4)
    assert not found.waiting
    assert not found.misplaced


def test_one_by_one_after_something_was_too_large() -> None:
    """Where one of several was too large each comes alone, timers first, until all have come."""
    found = partition(1, 2)
    found.alone = 3
    timers = [DueTimer("k", "a", 1), DueTimer("k", "b", 2)]
    portion = found.portion(10_000, 99, timers)
    assert (portion.taken, len(portion.timers)) == (0, 1)
    assert found.portion(10_000, 99, ()).taken == 1
    found.taken(1)
    found.taken(1)
    assert found.alone == 1


def test_the_position_is_the_end_when_nothing_waits() -> None:
    """Ends of transactions take offsets that no record has: behind them nothing is left."""
    found = partition(0, 1)
    found.end = 3
    assert found.position == 0
    found.taken(2)
    found.next = 2
    assert found.position == 3


def test_what_comes_before_it_is_opened_is_read_again() -> None:
    """A record that was on its way to the partition's last life is not taken, but noted."""
    found = Partition(0)
    found.take(record(7), misplaced=False)
    assert not found.waiting
    assert found.stray
    found.ready()
    found.take(record(3), misplaced=False)
    assert [each.offset for each in found.waiting] == [3]
