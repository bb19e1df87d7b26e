"""Nodes that give a message another shape, and those that add to it what is known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.route.bench import KEY, START_MS, Bench, problems_of, record, rulebook, uplink
from tests.unit.route.talk import Talk, chain, metadata, outlets, reasons, telemetry


@pytest.mark.parametrize(
    ("node", "after"),
    [
        ("rename: {telemetry.a: telemetry.b}", {"b": 1, "n": {"x": 2}}),
        (
            "rename: {telemetry.a: telemetry.n.x, telemetry.n.x: telemetry.a}",
            {"a": 2, "n": {"x": 1}},
        ),
        ("rename: {telemetry.no: telemetry.b}", {"a": 1, "n": {"x": 2}}),
        ("rename: {telemetry.a: metadata.b}", {"n": {"x": 2}}),
        ("copy: {telemetry.n.x: telemetry.x}", {"a": 1, "n": {"x": 2}, "x": 2}),
        ("copy: {telemetry.no: telemetry.x}", {"a": 1, "n": {"x": 2}}),
        ("delete: [telemetry.a, telemetry.no.x]", {"n": {"x": 2}}),
        ("delete: [telemetry.n.x, telemetry.a.x]", {"a": 1, "n": {}}),
        ('map: {telemetry: {b: "${telemetry.a + 1}"}}', {"b": 2}),
        ('map: {telemetry: "${telemetry.n}"}', {"x": 2}),
        ("map: {metadata: {}}", {"a": 1, "n": {"x": 2}}),
    ],
)  # fmt: skip
def test_values_change_places(node: str, after: dict[str, Any]) -> None:
    """Values go where they are told; what is not there is passed over."""
    assert telemetry(Talk(node).at(1, {"a": 1, "n": {"x": 2}})) == [after]


def test_values_move_beside_the_data() -> None:
    """Telemetry may become metadata, and keeps what stands there."""
    made = Talk("rename: {telemetry.a: metadata.site.a}").at(
        1, {"a": 1}, metadata={"site": {"b": 2}}
    )

    assert metadata(made) == [{"site": {"a": 1, "b": 2}}]


def test_other_chains_see_the_message_as_it_came() -> None:
    """What is moved, copied and deleted inside of mappings is so in this chain alone."""
    text = """
chain: main
on: {messages: uplink}
nodes:
  - {name: a, copy: {telemetry.n.x: telemetry.n.y}}
  - {name: b, delete: [telemetry.n.x]}
  - {name: c, rename: {telemetry.n.z: metadata.n.z}}
"""
    other = chain("delete: [telemetry.no]").replace("chain: main", "chain: other")
    bench = Bench(rulebook(text, other))

    made = bench.take(record(uplink(telemetry={"n": {"x": 1, "z": 2}}, metadata={"n": {}})))

    assert made.bodies == [["then", {"n": {"x": 1, "z": 2}}, {"n": {}}, "u1.0"]]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("rename: {telemetry.b: telemetry.a.x}", "set"),
        ("copy: {telemetry.b: telemetry.a.x}", "set"),
        ('map: {telemetry: "${telemetry.a}"}', "map"),
        ("split: {list: telemetry.a}", "split"),
        ("split: {list: telemetry.l, items_max: 2}", "split"),
        ("split: {list: telemetry.l}", "split"),
        ("split: {list: telemetry.l, into: telemetry.x, time: at}", "split_time"),
        ("look_up: {key: '${telemetry.l}', into: metadata.x, table: {a: 1}}", "look_up"),
        ("enrich: {into: telemetry.a.x, device: [name]}", "set"),
    ],
)
def test_bad_value_fails_the_message(node: str, reason: str) -> None:
    """A message whose values cannot take the new shape is a dead letter that says why."""
    assert reasons(Talk(node).at(1, {"a": 1, "b": 2, "l": [1, 2, 3]})) == [reason]


@pytest.mark.parametrize(
    ("node", "path", "message"),
    [
        ("rename: {temperature: telemetry.b}", ("rename", "temperature"), "`temperature` is no"),
        ("rename: {telemetry.a: b}", ("rename", "telemetry.a"), "`b` is no place"),
        ("copy: []", ("copy",), "must be a mapping from place to place"),
        ("delete: [telemetry]", ("delete", 0), "`telemetry` is no place"),
        ("delete: []", ("delete",), "must not be empty"),
        ("map: {}", ("map",), "needs `telemetry`, `metadata`, or both"),
        ("map: {telemetry: '${nothing}'}", ("map", "telemetry"), ""),
        ("split: {list: telemetry.l, items_max: 501}", ("split", "items_max"), "must be at most"),
        ("look_up: {key: a, into: metadata.x, table: {}}", ("look_up", "table"), "must not be"),
        ("enrich: {into: metadata.x}", ("enrich",), "needs `attributes`, `device`, `last`"),
        ("delete_attributes: {scope: server, names: []}", ("delete_attributes", "names"), "must"),
        ("match_type: {uplnk: stop}", ("match_type", "uplnk"), "there are no messages `uplnk`"),
        ("has_fields: []", ("has_fields",), "must not be empty"),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong(node: str, path: tuple[Any, ...], message: str) -> None:
    """What can be known without a message is a problem at its place."""
    problem = problems_of(chain(node))[0]

    assert problem.path == ("nodes", 0, *path)
    assert problem.message.startswith(message)


def test_split_makes_a_message_of_each_item() -> None:
    """Items that are mappings are the telemetry, in order, each with its time and its own id."""
    talk = Talk("split: {list: telemetry.l, time: at}", "otherwise")
    items = [{"t": 1, "at": 5_000}, {"t": 2, "at": "1970-01-01T00:00:06Z"}]

    made = talk.at(1, {"l": items, "battery": 9})

    assert [body[1] for body in made.bodies] == [{"t": 1}, {"t": 2}]
    assert len({body[3] for body in made.bodies} | {"u1.0"}) == 3
    assert outlets(talk.at(2, {"battery": 9})) == ["otherwise"]
    assert list(talk.at(3, {"l": []})) == []


def test_split_sets_the_time() -> None:
    """A message that was split off is as of the item's time."""
    text = """
chain: main
on: {messages: uplink}
nodes:
  - {name: a, split: {list: telemetry.l, time: at}}
  - {name: archive, send: {to: archive, body: "${message.time}"}}
"""
    items = [{"at": 5_000}, {"at": "1970-01-01T01:00:06+01:00"}]

    made = Bench(rulebook(text)).take(record(uplink(telemetry={"l": items})))

    assert made.bodies == ["1970-01-01T00:00:05Z", "1970-01-01T00:00:06Z"]


@pytest.mark.parametrize("at", [-1, 1.5, True, None, "yesterday", "2025-11-21T08:00:00", 10**15])
def test_split_knows_bad_times(at: Any) -> None:
    """A time that is none, or has no zone, fails the message."""
    assert reasons(Talk("split: {list: telemetry.l, time: at}").at(1, {"l": [{"at": at}]})) == [
        "split_time"
    ]


def test_split_puts_items_into_a_place() -> None:
    """With `into`, all else stays beside the item, and the list is gone."""
    made = Talk("split: {list: telemetry.l, into: telemetry.x}").at(1, {"l": [1, [2]], "b": 9})

    assert telemetry(made) == [{"b": 9, "x": 1}, {"b": 9, "x": [2]}]


def test_look_up_adds_an_entry() -> None:
    """An entry goes to its place; numbers and truth values are found by their text."""
    talk = Talk(
        "look_up: {key: '${telemetry.k}', into: telemetry.site, "
        "table: {a: {f: 1}, '7': b, 'true': c}}",
        "otherwise",
    )

    assert telemetry(talk.at(1, {"k": "a"})) == [{"k": "a", "site": {"f": 1}}]
    assert telemetry(talk.at(2, {"k": 7})) == [{"k": 7, "site": "b"}]
    assert telemetry(talk.at(3, {"k": True})) == [{"k": True, "site": "c"}]
    assert outlets(talk.at(4, {"k": "none"})) == ["otherwise"]


def test_enrich_adds_what_is_known() -> None:
    """Attributes, fields of the device and last values stand under one place; what is not known
    is left out, and makes the message leave by `incomplete`.
    """
    talk = Talk(
        "enrich: {into: metadata.known, attributes: {server: [site], shared: [target]}, "
        "device: [type, customer], last: [telemetry.humidity]}",
        "incomplete",
    )
    talk.bench.parts[KEY] = {
        "attributes/server": {"values": {"site": "A"}, "times": {"site": START_MS}}
    }

    first = talk.at(1, {"temperature": 1}, metadata={"known": {"x": 1}})
    assert outlets(first) == ["incomplete"]
    assert first.bodies[0][2] == {"known": {"x": 1, "site": "A", "type": "thermostat"}}

    talk.bench.parts[KEY]["attributes/shared"] = {"values": {"target": 5}, "times": {"target": 0}}
    talk.at(2, {"humidity": 40}, customer="Acme")
    assert metadata(talk.at(3, {"temperature": 2}, customer="Acme", metadata={})) == [
        {
            "known": {
                "site": "A",
                "target": 5,
                "type": "thermostat",
                "customer": "Acme",
                "humidity": 40,
            }
        }
    ]


def test_enrich_forgets_old_values() -> None:
    """A last value over `max_age` is not known; one that comes late replaces no newer one."""
    talk = Talk("enrich: {into: metadata.k, last: [telemetry.h], max_age: 10s}")
    talk.at(100, {"h": 1})
    talk.at(101, {"h": 2}, time_ms=START_MS)

    assert metadata(talk.at(110, {}, metadata={})) == [{"k": {"h": 1}}]
    assert metadata(talk.at(111, {}, metadata={})) == [{"k": {}}]


def test_delete_attributes_tells_the_chains() -> None:
    """Attributes are gone for later nodes at once, and chains are told of the change."""
    text = """
chain: main
on: {messages: [uplink, attributes_updated]}
nodes:
  - {name: a, delete_attributes: {scope: server, names: [x, no]}}
  - {name: b, send: {to: archive, body: ["${message.type}", "${attributes.server}", "${changed}"]}}
"""
    bench = Bench(rulebook(text))
    times = {"x": START_MS, "y": START_MS}
    bench.parts[KEY] = {"attributes/server": {"values": {"x": 1, "y": 2}, "times": times}}

    made = bench.take(record(uplink()))

    assert made.bodies == [["uplink", {"y": 2}, []], ["attributes_updated", {"y": 2}, ["x"]]]
    assert bench.values("server") == {"y": 2}
