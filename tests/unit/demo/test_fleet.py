"""The simulated devices, minute by minute."""

from __future__ import annotations

from random import Random
from struct import unpack

import pytest

from pipeline.demo.fleet import Fleet, Meter, Thermostat, Tracker, minute_s


def test_thermostat_warms_until_told_to_cool() -> None:
    """A room warms up by itself, cools after `cooling`, and warms again after it is taken back."""
    thermostat = Thermostat("t", Random(1))

    (began,) = unpack(">h2x", thermostat.report(0))
    (warmed,) = unpack(">h2x", thermostat.report(30))
    assert thermostat.receive(30, bytes([1, 0x00, 0xDC]))
    (cooled, _, flags) = unpack(">hBB", thermostat.report(60))
    assert thermostat.receive(60, bytes([0, 0x00, 0xDC]))
    (again,) = unpack(">h2x", thermostat.report(90))

    assert began < warmed
    assert cooled < warmed
    assert flags == 1
    assert cooled < again


def test_rooms_stay_within_what_rooms_can_be() -> None:
    """However long nobody minds a thermostat, its reading fits the two bytes."""
    thermostat = Thermostat("t", Random(1))

    thermostat.report(1e6)
    assert thermostat.state()["temperature"] == 35
    thermostat.receive(1e6, bytes([1, 0, 0]))
    thermostat.report(2e6)
    assert thermostat.state()["temperature"] == 12


def test_tracker_reports_at_once_when_it_begins_or_ends_to_move() -> None:
    """A change of motion is due before the interval ends, and the report says it."""
    tracker = Tracker("t", Random(3))
    tracker.receive(0, (240).to_bytes(2, "big"))
    tracker.report(0)
    moving = tracker.moving

    due = tracker.due
    payload = tracker.report(due)

    assert due < 100, "long before the 240 minutes are over"
    assert payload[9] == (not moving)
    assert tracker.moving is not moving


@pytest.mark.parametrize("interval", [1, 5])
def test_tracker_reports_as_often_as_it_is_told(interval: int) -> None:
    """After a downlink the reports are its interval apart."""
    tracker = Tracker("t", Random(5))
    tracker.report(tracker.due)
    tracker.receive(2, interval.to_bytes(2, "big"))

    times = []
    for _ in range(3):
        times.append(tracker.due)
        tracker.report(times[-1])

    assert times[2] - times[1] == interval


def test_meter_cools_while_its_valve_is_closed() -> None:
    """Water warms while the valve is open; closed there is no flow and it cools."""
    meter = Meter("4D0001", Random(1))

    _, flow, began = unpack(">IHh", meter.report(0))
    volume, _, warmed = unpack(">IHh", meter.report(20))
    assert meter.receive(20, bytes([0, 0, 10, 0, 0, 0, 0, 0]))
    volume_closed, no_flow, cooled = unpack(">IHh", meter.report(40))

    assert flow > 0
    assert began < warmed
    assert no_flow == 0
    assert cooled < warmed
    assert volume_closed == volume


def test_meter_asks_now_and_then() -> None:
    """Every other report of a meter asks for a downlink."""
    meter = Meter("4D0001", Random(1))

    asked = []
    for minute in range(0, 60, 10):
        meter.report(minute)
        asked.append(meter.asks)

    assert sorted(asked[:2]) == [False, True]
    assert asked[:2] == asked[2:4] == asked[4:]


def test_unreadable_downlinks_change_nothing() -> None:
    """What a device cannot read, it ignores, and does not count."""
    for device in (Thermostat("t", Random(1)), Tracker("r", Random(1)), Meter("1", Random(1))):
        before = device.state()

        assert not device.receive(0, b"")

        assert device.state() == before
        assert device.received == 0


def test_pace_is_kept() -> None:
    """A report that is a little late does not delay those after it; one far too late does."""
    thermostat = Thermostat("t", Random(1))
    first = thermostat.due

    thermostat.report(first + 0.4)
    assert thermostat.due == pytest.approx(first + 1)
    thermostat.report(first + 100)
    assert thermostat.due == pytest.approx(first + 101)


def test_a_seed_is_a_fleet() -> None:
    """The same seed gives the same fleet, another seed another; kinds are equal in number."""
    states = [[d.state() for d in Fleet(24, seed).devices] for seed in (1, 1, 2)]

    assert states[0] == states[1] != states[2]
    fleet = Fleet(24, 1)
    assert len(fleet.thermostats) == len(fleet.trackers) == len(fleet.meters) == 8
    assert len({device.id for device in fleet.devices}) == 24
    with pytest.raises(ValueError, match="from 3 to"):
        Fleet(2, 1)


def test_rate_is_about_what_was_asked() -> None:
    """Where devices obey as rules tell them, a fleet sends about as many uplinks as asked."""
    fleet, rate, sent = Fleet(24, 1), 40.0, 0
    minute_length_s = minute_s(24, rate)
    minutes = 200

    for tick in range(minutes * 10):
        minute = tick / 10
        for device in fleet.devices:
            if device.due <= minute:
                device.report(minute)
                sent += 1
                if isinstance(device, Tracker):
                    device.receive(minute, (1 if device.moving else 30).to_bytes(2, "big"))

    assert sent / (minutes * minute_length_s) == pytest.approx(rate, rel=0.3)
