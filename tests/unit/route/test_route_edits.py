"""Rules that are edited while a message is in the middle of a chain: it goes on by its node's name,
by the new rules; where its node is gone it is a dead letter.
"""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import topics
from pipeline.model.event import CallEnded
from pipeline.model.record import RULES_VERSION
from tests.unit.route.bench import START_MS, Bench, Made, record, rulebook, uplink

HEAD = "chain: main\non: {messages: uplink}\nnodes:\n"

WAITING = {
    "delay": "delay: 10s",
    "debounce": "debounce: {quiet: 10s}",
    "throttle": "throttle: {per: 10s, take: last}",
    "collect": "collect: {of: telemetry.temperature, into: telemetry.list, within: 10s}",
    "window": "window: {length: 10s, values: {n: {count: telemetry.temperature}}}",
    "silence": "silence: {after: 10s}",
    "schedule": "schedule: {every: 10s}",
    "geofence": "geofence: {latitude: telemetry.lat, longitude: telemetry.lon, dwell: 10s,"
    " circle: {latitude: 1, longitude: 1, radius_m: 10}}, dwelled: DWELLED",
}
"""Nodes that keep a message until it is time, each in the middle of a chain."""


def before(node: str) -> str:
    node = node.replace("DWELLED", "old")
    return HEAD + (
        f"  - {{name: waits, {node}}}\n  - {{name: old, send: {{to: archive, body: [old]}}}}\n"
    )


def after(node: str, name: str = "waits") -> str:
    """The chain edited: a node before it, another after it, and the last one renamed."""
    node = node.replace("DWELLED", "between")
    return HEAD + (
        "  - {name: first, set: {fields: {metadata.first: 1}}}\n"
        f"  - {{name: {name}, {node}}}\n"
        "  - {name: between, set: {fields: {metadata.between: true}}}\n"
        '  - {name: new, send: {to: archive, body: [new, "${metadata.between}"]}}\n'
    )


def waiting(node: str) -> Bench:
    bench = Bench(rulebook(before(node)))
    telemetry = {"temperature": 1, "lat": 1.0, "lon": 1.0}
    assert bench.take(record(uplink(0, telemetry=telemetry))).letters == []
    assert bench.timers
    return bench


def rest(bench: Bench) -> Made:
    """All that comes within a minute, timers that others set included."""
    made = Made()
    for _ in range(6):
        made.extend(bench.wait(10_000))
    return made


@pytest.mark.parametrize("node", WAITING.values(), ids=WAITING)
def test_it_goes_on_by_name(node: str) -> None:
    """The node stands elsewhere in the chain now, and leads elsewhere: the message goes there."""
    bench = waiting(node)
    bench.books["t"] = rulebook(after(node), version="v2")

    made = rest(bench)

    assert made.letters == []
    assert made.bodies
    assert all(body == ["new", True] for body in made.bodies)
    assert {out.headers[RULES_VERSION] for out in made} == {"v2"}


@pytest.mark.parametrize("node", WAITING.values(), ids=WAITING)
def test_its_node_is_gone(node: str) -> None:
    """Where no node has the name any more, the message is kept as a dead letter, once, which says
    where it was and by which rules; nothing is left waiting.
    """
    bench = waiting(node)
    bench.books["t"] = rulebook(after(node, name="another"), version="v2")

    made = rest(bench)

    assert [letter.reason for letter in made.letters] == ["node_gone"]
    assert made.letters[0].detail == {"chain": "main", "node": "waits", "rules": "v1"}
    assert made.bodies == []
    assert bench.timers == {}


CALL = "remote_call: {to: application, timeout: 1h}"


def asked(node: str) -> tuple[Bench, str]:
    """A message that waits for an answer, and the id of what was asked."""
    bench = Bench(rulebook(before(node)))
    (delivery,) = bench.take(record(uplink())).deliveries
    return bench, delivery.id


def answer(call: str) -> Any:
    return record(
        CallEnded(
            f"{call}.e", "t", "dev", START_MS + 5_000, call, "replied", answer={"status": 200}
        )
    )


def test_a_reply_finds_its_node() -> None:
    """A message that waits for a service goes on by the new rules when the answer comes."""
    bench, call = asked(CALL)
    bench.books["t"] = rulebook(after(CALL), version="v2")

    made = bench.take(answer(call))

    assert (made.letters, made.bodies) == ([], [["new", True]])
    assert made[0].headers[RULES_VERSION] == "v2"


def test_a_reply_whose_node_is_gone() -> None:
    """The message that asked becomes a dead letter when the answer comes; nothing waits then."""
    bench, call = asked(CALL)
    bench.books["t"] = rulebook(after(CALL, name="another"), version="v2")

    made = bench.take(answer(call))

    assert [letter.reason for letter in made.letters] == ["node_gone"]
    assert made.letters[0].detail == {"chain": "main", "node": "waits", "rules": "v1"}
    assert rest(bench) == []
    assert bench.timers == {}


DEVICE_CALL = "call_device: {payload: {ask: 1}, reply: has(telemetry.answer), timeout: 1h}"


@pytest.mark.parametrize(("name", "reasons"), [("waits", []), ("another", ["node_gone"])])
def test_a_devices_reply(name: str, reasons: list[str]) -> None:
    """A device's reply finds its node by name; where that is gone the message that asked is a dead
    letter, and the reply is an uplink like any other.
    """
    bench = Bench(rulebook(before(DEVICE_CALL)))
    assert len(bench.take(record(uplink(1))).downlinks) == 1
    asks = "nodes:\n  - {name: asks, filter: '!has(telemetry.answer)', otherwise: heard}\n"
    text = after(DEVICE_CALL, name).replace("nodes:\n", asks)
    text = text.replace("]}}\n", "]}, then: stop}\n")
    text += "  - {name: heard, send: {to: archive, body: [heard]}}\n"
    bench.books["t"] = rulebook(text, version="v2")

    made = bench.take(record(uplink(2, telemetry={"answer": 7})))
    later = bench.wait(3_600_000)

    bodies = made.bodies + later.bodies
    assert [letter.reason for letter in (*made.letters, *later.letters)] == reasons
    assert ["heard"] in bodies
    assert (["new", True] in bodies) == (not reasons)
    assert bench.timers == {}


def test_all_that_route_writes_names_its_rules() -> None:
    """Deliveries, downlinks, what is told to others, windows, dead letters: each names them."""
    text = HEAD + (
        "  - {name: send, send: {to: archive}}\n"
        "  - {name: down, send_downlink: {bytes: 'hex:01'}}\n"
        "  - {name: tell, tell: {to: other, device_type: x}}\n"
        "  - {name: fail, filter: telemetry.nothing > 1}\n"
        "  - {name: end, send: {to: archive}}\n"
    )
    fine = text[: text.index("  - {name: fail")]

    made = Bench(rulebook(fine, version="v7")).take(record(uplink()))
    failed = Bench(rulebook(text, version="v7")).take(record(uplink()))

    assert {out.topic for out in made} >= {
        topics.DOWNLINK_REQUESTED,
        topics.DEVICE_EVENTS,
        f"{topics.DELIVERY_PREFIX}t.archive",
    }
    assert {out.topic for out in failed} == {topics.DEAD_LETTER}
    assert {out.headers[RULES_VERSION] for out in (*made, *failed)} == {"v7"}
