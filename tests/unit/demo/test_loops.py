"""When a loop counts as closed."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.demo.loops import Loops, all_closed
from pipeline.demo.news import News
from pipeline.model.downlink import State
from tests.unit.demo.stories import life, said

SENT = (State.REQUESTED, State.ENCODED, State.QUEUED, State.SENDING, State.SENT)
ANSWERED = (State.REQUESTED, State.ENCODED, State.QUEUED, State.ANSWERING, State.SENT)


def stories(loops: Loops, *news: News) -> list[str]:
    return [loop.text for each in news for loop in loops.watch(each)]


def test_thermostat_that_cools() -> None:
    """Fan on and cooler than when the rule asked: the loop is closed, once."""
    news = News(
        [
            said("thermostat", 1_000, temperature=23.1, fan="off"),
            said("thermostat", 2_000, temperature=23.1, fan="on"),
            said("thermostat", 3_000, temperature=23.0, fan="on"),
            said("thermostat", 4_000, temperature=22.9, fan="on"),
        ],
        life("thermostat", 1_010, *SENT, cooling=True, target=22),
    )
    loops = Loops(1.0)

    told = stories(loops, news)

    assert told == ["too warm 23.1 °C → cooling on → downlink 0100dc → 23 °C, cooling"]
    assert loops.closed == {"thermostat": 1}


def test_later_reports_open_no_loop_again() -> None:
    """A report of the network server on a downlink that was obeyed is no new loop."""
    loops = Loops(1.0)
    states = life("thermostat", 1_010, *SENT, State.ACCEPTED, cooling=False, target=22)
    stories(
        loops,
        News([said("thermostat", 1_000, temperature=20.9, fan="on")], states[:-1]),
        News([said("thermostat", 2_000, temperature=21, fan="off")]),
        News([], states[-1:]),
        News([said("thermostat", 3_000, temperature=21.1, fan="off")]),
    )

    assert loops.closed == {"thermostat": 1}


@pytest.mark.parametrize(
    ("states", "telemetry"),
    [
        (SENT, {"temperature": 23.0, "fan": "off"}),
        (SENT, {"temperature": 23.2, "fan": "on"}),
        (SENT[:-1], {"temperature": 23.0, "fan": "on"}),
        ((*SENT[:-1], State.FAILED), {"temperature": 23.0, "fan": "on"}),
        ((State.REQUESTED, State.SUPERSEDED), {"temperature": 23.0, "fan": "on"}),
    ],
    ids=["fan off", "no cooler", "not sent", "failed", "superseded"],
)
def test_loop_stays_open(states: tuple[State, ...], telemetry: dict[str, Any]) -> None:
    """Without the device's own word, or without a downlink that left, nothing is closed."""
    loops = Loops(1.0)
    news = News(
        [
            said("thermostat", 1_000, temperature=23.1, fan="off"),
            said("thermostat", 2_000, **telemetry),
        ],
        life("thermostat", 1_010, *states, cooling=True, target=22),
    )

    assert stories(loops, news) == []


def test_tracker_that_reports_as_told() -> None:
    """Two uplinks after the downlink, as far apart as the interval: closed; others not."""
    loops = Loops(2.0)
    news = News(
        [
            said("tracker", 0, moving=False, battery=50),
            said("tracker", 20_000, moving=True, battery=50),
            said("tracker", 21_000, moving=True, battery=50),  # the downlink came between
            said("tracker", 29_000, moving=True, battery=50),  # too far apart
            said("tracker", 31_000, moving=True, battery=50),
        ],
        life("tracker", 20_010, *SENT, State.ACCEPTED, interval=1),
    )

    assert stories(loops, news) == [
        "moves → interval 1 min → downlink 0100dc → an uplink each 2.0 s"
    ]


@pytest.mark.parametrize(
    ("valve", "before", "after", "end"),
    [
        ("closed", (65.4, 200), (63.0, 0), "63 °C, no flow"),
        ("open", (54.0, 0), (55.5, 200), "55.5 °C, 200 l/h"),
    ],
)
def test_meter_whose_valve_moves(
    valve: str, before: tuple[float, int], after: tuple[float, int], end: str
) -> None:
    """Flow and temperature show that the valve was moved."""
    loops = Loops(1.0)
    news = News(
        [
            said("meter", 1_000, temperature=before[0], flow=before[1]),
            said("meter", 9_000, temperature=after[0], flow=after[1]),
        ],
        life("meter", 1_010, *ANSWERED, valve=valve, interval=10),
    )

    (told,) = stories(loops, news)
    assert told.endswith(end)
    assert f"valve {valve}" in told


def test_newer_downlink_takes_the_place_of_the_older() -> None:
    """Only the newest downlink of a device can close a loop."""
    loops = Loops(1.0)
    first = said("thermostat", 1_000, temperature=23.1, fan="off")
    told = stories(
        loops,
        News([first], life("thermostat", 1_010, *SENT, cooling=True, target=22)),
        News([], life("thermostat", 1_500, *SENT, id_="d2", cooling=False, target=30)),
        News([said("thermostat", 2_000, temperature=23.0, fan="on")]),
    )

    assert told == []


def test_all_closed_needs_all_three_kinds() -> None:
    """Two kinds are not all."""
    assert not all_closed({"thermostat", "meter"})
    assert all_closed(["thermostat", "meter", "tracker"])
