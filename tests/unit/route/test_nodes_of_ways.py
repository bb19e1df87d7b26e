"""Nodes that choose a way: by type, by fields, by place; and what a called chain hands back."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.route.nodes.geofence import Position, distance_m, is_inside
from tests.unit.route.bench import START_MS, Bench, problems_of, record, rulebook, uplink
from tests.unit.route.talk import Talk, chain, outlets, reasons

DEPOT = "circle: {latitude: 52.0, longitude: 4.0, radius_m: 1000}"
INSIDE = {"latitude": 52.001, "longitude": 4.001}
OUTSIDE = {"latitude": 52.1, "longitude": 4.0}


@pytest.mark.parametrize(
    ("kind", "reached"), [("uplink", "a"), ("join", "b"), ("status", "a"), ("location", "else")]
)
def test_match_type_leads_by_type(kind: str, reached: str) -> None:
    """A message goes to its type's node; one whose type is not named, by `otherwise`."""
    text = """
chain: main
on: {messages: [uplink, join, status, location]}
nodes:
  - {name: kind, match_type: {uplink: a, join: b, status: a}, otherwise: else}
  - {name: a, send: {to: archive, body: a}, then: stop}
  - {name: b, send: {to: archive, body: b}, then: stop}
  - {name: else, send: {to: archive, body: else}}
"""
    assert Bench(rulebook(text)).take(record(uplink(type=kind))).bodies == [reached]


def test_match_type_names_nodes_that_exist() -> None:
    """A target that is no node is a problem at its type."""
    (problem,) = problems_of(chain("match_type: {uplink: nowhere, join: out then}"))

    assert problem.path == ("nodes", 0, "match_type", "uplink")


@pytest.mark.parametrize(
    ("telemetry", "outlet"),
    [
        ({"a": 0, "n": {"x": False}}, "then"),
        ({"a": 0, "n": {}}, "otherwise"),
        ({"a": 0, "n": 1}, "otherwise"),
        ({"a": None, "n": {"x": 1}}, "otherwise"),
    ],
)
def test_has_fields_wants_all(telemetry: dict[str, Any], outlet: str) -> None:
    """All fields must be there and not null; false and 0 are values."""
    talk = Talk("has_fields: [telemetry.a, telemetry.n.x]", "otherwise")

    assert outlets(talk.at(1, telemetry)) == [outlet]


OUTPUTS = """
chain: main
on: {messages: uplink}
nodes:
  - {name: judge, chain: other, outputs: {warm: alert, odd: stop}}
  - {name: rest, send: {to: archive, body: ["rest", "${telemetry}"]}, then: stop}
  - {name: alert, send: {to: archive, body: ["alert", "${telemetry}"]}}
"""
JUDGE = """
chain: other
nodes:
  - {name: odd, filter: "telemetry.t != 13", otherwise: say odd}
  - {name: warm, filter: telemetry.t > 30, otherwise: cold}
  - {name: shape, set: {fields: {telemetry.judged: true}}}
  - {name: say warm, output: warm}
  - {name: cold, filter: telemetry.t > 0, otherwise: stop}
  - {name: say cold, output: cold}
  - {name: say odd, output: odd}
"""


@pytest.mark.parametrize(
    ("t", "bodies"),
    [
        (35, [["alert", {"t": 35, "judged": True}]]),
        (5, [["rest", {"t": 5}]]),
        (-5, [["rest", {"t": -5}]]),
        (13, []),
    ],
)
def test_called_chain_hands_back(t: int, bodies: list[Any]) -> None:
    """What a called chain outputs goes on by its name; names that are not listed, and messages
    that were not handed back, by `then`.
    """
    made = Bench(rulebook(OUTPUTS, JUDGE)).take(record(uplink(telemetry={"t": t})))

    assert made.letters == []
    assert made.bodies == bodies


def test_output_without_a_caller_ends() -> None:
    """A chain that a message entered by `on` has nobody to hand it to."""
    text = JUDGE.replace("chain: other", "chain: other\non: {messages: uplink}")

    assert list(Bench(rulebook(text)).take(record(uplink(telemetry={"t": 35})))) == []


def test_output_of_a_failed_chain_is_not_handed_on() -> None:
    """Where the called chain fails after an output, the caller's `failure` is the only way."""
    judge = """
chain: other
nodes:
  - {name: both, split: {list: telemetry.l, into: telemetry.x}}
  - {name: fail, filter: telemetry.x < 2}
  - {name: back, output: warm}
"""
    text = OUTPUTS.replace("odd: stop}", "odd: stop}, on_failure: rest")

    made = Bench(rulebook(text, judge)).take(record(uplink(telemetry={"l": [1, "no"]})))

    assert made.bodies == [["rest", {"l": [1, "no"]}]]


def test_distance_of_known_places() -> None:
    """A degree of latitude is 111.195 km on the mean sphere; the poles are half its girth apart."""
    assert distance_m(Position(0, 0), Position(1, 0)) == pytest.approx(111_195, abs=1)
    assert distance_m(Position(0, 179.5), Position(0, -179.5)) == pytest.approx(111_195, abs=1)
    assert distance_m(Position(90, 0), Position(-90, 0)) == pytest.approx(20_015_115, abs=1)


@pytest.mark.parametrize(
    ("position", "inside"),
    [
        (Position(0, 180), True),
        (Position(0, -179), True),
        (Position(0, 179), True),
        (Position(0, -178), False),
        (Position(0, 0), False),
        (Position(2, 180), False),
    ],
)
def test_polygon_across_the_date_line(position: Position, inside: bool) -> None:
    """A polygon may lie on both sides of the 180th meridian."""
    corners = ((1.0, 178.5), (1.0, -178.5), (-1.0, -178.5), (-1.0, 178.5))

    assert is_inside(position, corners) is inside


def test_polygon_with_a_notch() -> None:
    """A polygon that is not convex holds what is inside its lines alone."""
    corners = ((0.0, 0.0), (0.0, 4.0), (4.0, 4.0), (1.0, 2.0), (4.0, 0.0))

    assert is_inside(Position(0.5, 2), corners)
    assert not is_inside(Position(3, 2), corners)
    assert is_inside(Position(2, 3.5), corners)


@pytest.mark.parametrize("fence", [DEPOT, "polygon: [[51.9, 3.9], [51.9, 4.1], [52.05, 4.0]]"])
def test_geofence_without_memory(fence: str) -> None:
    """Inside is `then`, outside `otherwise`, no position `unplaced`; nothing is kept."""
    talk = Talk(f"geofence: {{{fence}}}", "otherwise", "unplaced")

    assert outlets(talk.at(1, INSIDE)) == ["then"]
    assert outlets(talk.at(2, OUTSIDE)) == ["otherwise"]
    assert outlets(talk.at(3, {"latitude": 52.0})) == ["unplaced"]
    assert talk.kept() is None


def test_geofence_tells_entering_and_leaving() -> None:
    """The first message inside enters, the first one outside again leaves; one that is late does
    neither.
    """
    talk = Talk(f"geofence: {{{DEPOT}}}", "otherwise", "entered", "left")
    said = [
        talk.at(1, OUTSIDE),
        talk.at(2, INSIDE),
        talk.at(3, INSIDE),
        talk.at(4, OUTSIDE, time_ms=START_MS),
        talk.at(5, OUTSIDE),
        talk.at(6, OUTSIDE),
    ]

    assert [outlets(made) for made in said] == [
        ["otherwise"], ["entered"], ["then"], ["otherwise"], ["left"], ["otherwise"],
    ]  # fmt: skip


def test_geofence_tells_a_long_stay_once() -> None:
    """A device that stays leaves by `dwelled` when its time has come, with its last message; one
    that goes before, does not.
    """
    talk = Talk(f"geofence: {{{DEPOT}, dwell: 10s}}", "dwelled")
    talk.at(1, INSIDE)
    talk.at(5, {**INSIDE, "n": 2})
    stayed = talk.until(11)
    assert [body[:2] for body in stayed.bodies] == [["dwelled", {**INSIDE, "n": 2}]]

    talk.at(12, INSIDE)
    assert list(talk.until(100)) == []
    talk.at(101, OUTSIDE)
    talk.at(102, INSIDE)
    talk.at(103, OUTSIDE)
    assert list(talk.until(200)) == []


@pytest.mark.parametrize(
    ("telemetry", "reason"),
    [
        ({"latitude": 91, "longitude": 4}, "geofence"),
        ({"latitude": "52", "longitude": 4}, "number"),
        ({"latitude": 52, "longitude": 4, "r": -1}, "geofence"),
        ({"latitude": 52, "longitude": 4, "r": "far"}, "geofence"),
    ],
)
def test_geofence_knows_bad_positions(telemetry: dict[str, Any], reason: str) -> None:
    """What is no position, or no radius, fails the message."""
    talk = Talk(
        "geofence: {circle: {latitude: 52.0, longitude: 4.0, radius_m: '${telemetry.r}'}}",
    )

    assert reasons(talk.at(1, {"r": 1, **telemetry})) == [reason]


@pytest.mark.parametrize(
    "fence",
    [
        "{}",
        "{circle: {latitude: 95, longitude: 0, radius_m: 1}}",
        "{circle: {latitude: 0, longitude: 0, radius_m: 0}}",
        "{polygon: [[0, 0], [1, 1]]}",
        "{polygon: [[0, 0], [1, 1], [100, 0]]}",
        "{polygon: [[0, 0], [1, 1], [1, 0]], circle: {latitude: 0, longitude: 0, radius_m: 1}}",
        "{polygon: [[0, 0], [1, 1], [1, 0]], dwell: 5m}",
    ],
)
def test_geofence_is_checked(fence: str) -> None:
    """A fence that is none, and a stay that goes nowhere, are found before they run."""
    assert problems_of(chain(f"geofence: {fence}"))
