from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.record import Record
from pipeline.sink.lanes import Entry, Lanes
from tests.unit.sink.fakes import START_MS, delivery, downlink_delivery


def admit(lanes: Lanes, number: int, device: str = "a", **more: Any) -> None:
    make = downlink_delivery if more else delivery
    record = Record("t", 0, number, START_MS, "k", b"12345", {})
    lanes.admit(record, make(number, device, **more), 0.0)


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.record.offset for entry in entries]


def done(lanes: Lanes, entries: list[Entry]) -> None:
    for entry in entries:
        lanes.finish(entry)
    lanes.release(entries, 0.0)


def test_one_in_flight_per_device() -> None:
    """While a delivery of a device is in flight, its later ones are not taken; others are."""
    lanes = Lanes()
    for number, device in enumerate("aab"):
        admit(lanes, number, device)
    first = lanes.take(1, 0.0)
    second = lanes.take(1, 0.0)
    assert numbers(first + second) == [0, 2]
    assert lanes.take(1, 0.0) == []
    done(lanes, first)
    assert numbers(lanes.take(1, 0.0)) == [1]


def test_a_batch_is_in_order_of_arrival() -> None:
    """One take mixes devices in the order in which their records arrived."""
    lanes = Lanes()
    for number, device in enumerate("abacab"):
        admit(lanes, number, device)
    assert numbers(lanes.take(4, 0.0)) == [0, 1, 2, 3]


def test_position_stops_before_the_first_that_is_open() -> None:
    """The position is the highest offset below which all is done, also out of order."""
    lanes = Lanes()
    for number, device in enumerate("abc"):
        admit(lanes, number, device)
    first, second, third = (lanes.take(1, 0.0) for _ in "abc")
    done(lanes, second)
    assert lanes.settled() == {}
    done(lanes, first)
    assert lanes.settled() == {0: 1}
    done(lanes, third)
    assert lanes.settled() == {0: 2}
    assert (len(lanes), lanes.value_bytes) == (0, 0)


def test_a_postponed_one_keeps_its_place_before_its_successors() -> None:
    """A device waits until its postponed delivery may be tried again, then begins with it."""
    lanes = Lanes()
    admit(lanes, 0)
    admit(lanes, 1)
    entries = lanes.take(1, 0.0)
    lanes.postpone(entries[0], 5.0)
    lanes.release(entries, 0.0)
    assert lanes.take(2, 4.9) == []
    assert lanes.ready_s() == 5.0
    assert numbers(lanes.take(2, 5.0)) == [0, 1]


def test_what_failed_more_often_is_tried_later() -> None:
    """A message that always fails does not stand before the others when the pause is over."""
    lanes = Lanes()
    admit(lanes, 0, "poison")
    admit(lanes, 1, "b")
    entries = lanes.take(1, 0.0)
    lanes.postpone(entries[0], 1.0)
    lanes.release(entries, 0.0)
    assert numbers(lanes.take(2, 0.5)) == [1]
    admit(lanes, 2, "c")
    assert numbers(lanes.take(1, 2.0)) == [2]
    admit(lanes, 3, "d")
    admit(lanes, 4, "e")
    assert numbers(lanes.take(2, 2.0)) == [3, 4]
    admit(lanes, 5, "f")
    assert numbers(lanes.take(2, 2.0)) == [0, 5]


def test_expiry_reaches_behind_a_waiting_one() -> None:
    """What runs out of time expires where it stands, and its device's others go on."""
    lanes = Lanes()
    admit(lanes, 0)
    admit(lanes, 1, expires_at_ms=START_MS + 10)
    admit(lanes, 2)
    assert lanes.expires_at_ms() == START_MS + 10
    assert numbers(lanes.expire(START_MS + 10)) == [1]
    assert lanes.expires_at_ms() is None
    assert numbers(lanes.take(9, 0.0)) == [0, 2]


def test_what_is_in_flight_expires_only_when_it_comes_back() -> None:
    """A request under way is waited for: it may succeed. Postponed, it expires."""
    lanes = Lanes()
    admit(lanes, 0, expires_at_ms=START_MS)
    entries = lanes.take(1, 0.0)
    assert lanes.expire(START_MS + 1) == []
    lanes.postpone(entries[0], 9.0)
    lanes.release(entries, 0.0)
    assert numbers(lanes.expire(START_MS + 1)) == [0]
    assert lanes.settled() == {0: 0}


@given(
    devices=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40),
    choices=st.binary(min_size=120, max_size=240),
)
def test_any_course_keeps_order_and_loses_nothing(devices: list[str], choices: bytes) -> None:
    """Whatever is taken, postponed and finished when: per device in order, each exactly once."""
    lanes = Lanes()
    for number, device in enumerate(devices):
        admit(lanes, number, device)
    finished: list[int] = []
    positions: list[int] = []
    open_batches: list[list[Entry]] = []
    now_s = 0.0
    for choice in choices + bytes([2]) * 200:  # in the end all comes through
        size, fails, holds = choice % 5 + 1, choice & 64, choice & 128
        now_s += 1
        batch = lanes.take(size, now_s)
        busy = [entry.delivery.device for held in open_batches for entry in held]
        assert not {entry.delivery.device for entry in batch} & set(busy)
        open_batches.append(batch)
        if holds:
            continue
        for held in open_batches:
            for entry in held:
                if fails:
                    lanes.postpone(entry, now_s + 2)
                else:
                    lanes.finish(entry)
                    finished.append(entry.record.offset)
            lanes.release(held, now_s)
        open_batches = []
        position = lanes.settled().get(0)
        if position is not None:
            positions.append(position)
            assert set(range(position + 1)) <= set(finished)
    assert sorted(finished) == list(range(len(devices)))
    for device in "abcd":
        own = [number for number in finished if devices[number] == device]
        assert own == sorted(own)
    assert positions == sorted(positions)
    assert positions[-1] == len(devices) - 1


def test_each_partition_has_its_own_position() -> None:
    """What is open in one partition does not hold the position of another."""
    lanes = Lanes()
    for number, partition in enumerate([0, 1, 0, 1]):
        record = Record("t", partition, number, START_MS, "k", b"12345", {})
        lanes.admit(record, delivery(number, f"device-{number}"), 0.0)
    first, *others = lanes.take(4, 0.0)
    done(lanes, others)
    assert lanes.settled() == {1: 3}
    assert (len(lanes), lanes.value_bytes) == (2, 10)
    done(lanes, [first])
    assert lanes.settled() == {0: 2}
    assert (len(lanes), lanes.value_bytes) == (0, 0)


def test_what_was_read_of_a_lost_partition_is_forgotten() -> None:
    """Its deliveries are not taken any more, and its position does not move; the lane of one that
    is in flight stays busy until it lands.
    """
    lanes = Lanes()
    for number, (partition, device) in enumerate([(0, "a"), (1, "b"), (0, "c"), (1, "d")]):
        record = Record("t", partition, number, START_MS, "k", b"12345", {})
        lanes.admit(record, delivery(number, device), 0.0)
    flying = lanes.take(1, 0.0)
    lanes.keep({1})
    assert flying[0].gone
    assert numbers(lanes.take(9, 0.0)) == [1, 3]
    assert (len(lanes), lanes.value_bytes) == (2, 10)
    again = Record("t", 0, 0, START_MS, "k", b"12345", {})
    lanes.admit(again, delivery(0, "a"), 0.0)
    assert lanes.take(9, 0.0) == []
    done(lanes, flying)
    landed = lanes.take(9, 0.0)
    assert [entry.gone for entry in landed] == [False]
    assert lanes.settled() == {}
    done(lanes, landed)
    assert lanes.settled() == {0: 0}
