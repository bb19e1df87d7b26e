"""Nodes that reach other devices: relate, unrelate, tell, change_device."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.model.event import Forget
from pipeline.model.record import EVENT_ID, REPLAY, REPLAY_CHAIN, TRACE_ID
from pipeline.route.limits import Limits
from tests.unit.route.bench import START_MS, problems_of, record
from tests.unit.route.fleet import Fleet

GATEWAY = """
chain: main
on: {messages: uplink, device_type: gateway}
nodes:
  - name: has meters
    relate: {relation: serves, to: "${telemetry.meters}"}
    on_failure: stop
  - name: tell them
    tell: {related: serves, what: tariff, telemetry: {tariff: "${telemetry.tariff}"}}
    otherwise: nobody
  - {name: nobody, send: {to: archive, body: nobody}}
"""
METER = """
chain: other
on: {messages: told, device_type: meter}
nodes:
  - name: keep
    set_attributes: {scope: server, values: {tariff: "${telemetry.tariff}"}}
  - name: say
    send:
      to: archive
      body: ["${device.name}", "${metadata.told}", "${relations.from.serves}", "${telemetry}"]
"""


def fleet(*chains: str, **limits: int) -> Fleet:
    made = Fleet(*chains, limits=Limits(**limits))
    for name in ("m1", "m2"):
        made.say(name, device_type="meter")
    return made


def test_a_gateway_tells_its_meters() -> None:
    """Each related device gets one message, which its own chain takes on its own state."""
    devices = fleet(GATEWAY, METER)

    made = devices.say("gw", device_type="gateway",
                       telemetry={"meters": ["m1", "m2"], "tariff": 2})  # fmt: skip

    assert made.letters == []
    told = {"by": "gw", "what": "tariff", "type": "uplink"}
    assert [body for body in made.bodies if body != "nobody"] == [
        ["m1", told, ["gw"], {"tariff": 2}],
        ["m2", told, ["gw"], {"tariff": 2}],
    ]
    assert devices.attributes("m1") == {"tariff": 2}
    assert devices.attributes("gw") == {}


def test_what_is_told_keeps_its_trace_and_has_an_id_of_its_cause() -> None:
    """The same message tells the same under the same ids, so that a repeat is known."""
    ids = []
    for _ in range(2):
        devices = fleet(GATEWAY, METER)
        devices.say("gw", device_type="gateway", telemetry={"meters": ["m1"], "tariff": 2})
        ids.append([out.headers[EVENT_ID] for out in devices.told])
        assert {out.headers[TRACE_ID] for out in devices.told} == {"gw-3"}
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0])


def test_telling_leaves_the_way_to_the_device_alone() -> None:
    """A told message changes neither the receiver's link nor its integration nor its type."""
    devices = fleet(GATEWAY, METER)
    before = devices.parts("m1")["device"]

    devices.say("gw", device_type="gateway", integration="sigfox", link=None,
                telemetry={"meters": ["m1"], "tariff": 2})  # fmt: skip

    assert devices.parts("m1")["device"] == before


def test_order_per_sender_and_receiver() -> None:
    """What one device tells another comes in the order in which it was said."""
    devices = fleet(GATEWAY, METER)
    for tariff in (1, 2, 3):
        devices.say("gw", device_type="gateway", telemetry={"meters": ["m1"], "tariff": tariff})

    tariffs = [
        msgspec.json.decode(out.value or b"")["telemetry"]["tariff"]
        for out in devices.told
        if b'"kind":"message"' in (out.value or b"")
    ]
    assert tariffs == [1, 2, 3]


def test_nobody_to_tell() -> None:
    """Without others the message leaves by `otherwise`, and nothing is written for anybody."""
    devices = fleet(GATEWAY, METER)

    made = devices.say("gw", device_type="gateway", telemetry={"meters": [], "tariff": 1})

    assert made.bodies == ["nobody"]
    assert devices.told == []


def test_relating_twice_changes_nothing() -> None:
    """The second time no device hears of it."""
    devices = fleet(GATEWAY, METER)
    said = {"meters": "m1", "tariff": 1}
    devices.say("gw", device_type="gateway", telemetry=said)
    before = len([out for out in devices.told if b'"kind":"relation"' in (out.value or b"")])
    devices.say("gw", device_type="gateway", telemetry=said)

    after = [out for out in devices.told if b'"kind":"relation"' in (out.value or b"")]
    assert before == len(after) == 1


def meter_moves(**limits: int) -> Fleet:
    return Fleet(
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - name: a
            relate: {relation: serves, from: "${telemetry.gateway}", only: true}
          - {name: b, send: {to: archive, body: "${relations}"}}
        """,
        limits=Limits(**limits),
    )


def test_only_leaves_the_others() -> None:
    """A meter that moves to another gateway leaves the first; all three know."""
    devices = meter_moves()
    devices.say("m", telemetry={"gateway": "g1"})

    made = devices.say("m", telemetry={"gateway": "g2"})

    assert made.bodies == [{"to": {}, "from": {"serves": ["g2"]}}]
    assert [part for part in devices.parts("g1") if part.startswith("relation/")] == []
    assert "relation/to/serves/m" in devices.parts("g2")


def test_too_many_relations() -> None:
    """Over the limit the node fails, on this side; on the other there is a dead letter."""
    devices = Fleet(
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: a, relate: {relation: serves, to: "${telemetry.to}"}}
        """,
        limits=Limits(relations_max=2),
    )

    here = devices.say("m", telemetry={"to": ["a", "b", "c"]})
    for name in ("x", "y", "z"):
        there = devices.say(name, telemetry={"to": "hub"})

    assert [letter.reason for letter in here.letters] == ["relations"]
    assert devices.parts("a") == {}, "what failed has told nobody"
    assert [letter.reason for letter in there.letters] == ["relations"]
    assert there.letters[0].key == "t/hub"


@pytest.mark.parametrize("named", [7, [7], "", ["a", ""], "x" * 300, {"a": 1}, ["a\n"]])
def test_what_names_no_device(named: Any) -> None:
    """An expression that names no device makes the node fail."""
    devices = Fleet(
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: a, tell: {to: "${telemetry.to}"}}
        """
    )

    made = devices.say("m", telemetry={"to": named})

    assert [letter.reason for letter in made.letters] in (["device_name"], ["device_missing"])
    assert devices.told == []


def test_unrelate() -> None:
    """Both sides forget one relation, or all of a name."""
    devices = Fleet(
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: a, relate: {relation: serves, to: [a, b, c]}}
          - {name: b, unrelate: {relation: serves, others: b}}
          - {name: c, send: {to: archive, body: "${relations.to}"}}
          - {name: d, unrelate: {relation: serves}}
          - {name: e, send: {to: archive, body: "${relations.to}"}}
        """
    )

    made = devices.say("m")

    assert made.bodies == [{"serves": ["a", "c"]}, {}]
    assert devices.parts("a") == devices.parts("b") == devices.parts("c") == {}


def test_forgotten_device_leaves_its_relations() -> None:
    """Whoever related to a forgotten device does so no longer."""
    devices = fleet(GATEWAY, METER)
    devices.say("gw", device_type="gateway", telemetry={"meters": ["m1", "m2"], "tariff": 2})

    devices.take(record(Forget("f", "t", "m1", START_MS)))

    assert [part for part in devices.parts("gw") if part.startswith("relation/")] == [
        "relation/to/serves/m2"
    ]
    assert devices.parts("m1") == {}


def test_stranger() -> None:
    """A device that was never heard is a mistake, told by a dead letter; with its type it becomes
    known, and its chain takes the message.
    """
    tell = """
    chain: main
    on: {{messages: uplink}}
    nodes:
      - {{name: a, tell: {{to: room, {more}}}}}
    """
    room = """
    chain: other
    on: {messages: told, device_type: room}
    nodes:
      - {name: a, send: {to: archive, body: "${device}"}}
    """
    lost = Fleet(tell.format(more="what: x"), room).say("m")
    devices = Fleet(tell.format(more="device_type: room"), room)
    found = devices.say("m")

    (letter,) = lost.letters
    assert (letter.reason, letter.key, letter.detail["by"]) == ("device_unknown", "t/room", "m")
    assert found.bodies[0]["type"] == "room"
    assert devices.parts("room")["device"]["type"] == "room"


def test_replay_of_what_was_told() -> None:
    """A dead letter of a chain that failed on a told message is replayed for that chain."""
    devices = fleet(GATEWAY, METER.replace("telemetry.tariff}", "telemetry.tarif}"))
    made = devices.say("gw", device_type="gateway", telemetry={"meters": "m1", "tariff": 2})
    (letter,) = made.letters
    assert letter.detail["chain"] == "other"
    devices.bench.books["t"] = Fleet(GATEWAY, METER).bench.book

    headers = {**letter.headers, REPLAY: letter.id, REPLAY_CHAIN: letter.detail["chain"]}
    event = msgspec.json.decode(letter.value or b"")
    again = devices.take(record(msgspec.convert(event, type=_message_type()), **headers))

    assert [body[0] for body in again.bodies] == ["m1"]


def _message_type() -> Any:
    from pipeline.model.event import DeviceMessage

    return DeviceMessage


PING_PONG = """
chain: main
on: {messages: [uplink, told]}
nodes:
  - name: a
    tell: {to: "${device.name == 'm1' ? 'm2' : 'm1'}", telemetry: {}}
"""


def test_hops_end() -> None:
    """Devices that tell each other for ever come to an end, with a dead letter."""
    devices = Fleet(PING_PONG, limits=Limits(hops_max=4))
    for name in ("m1", "m2"):
        devices.say(name)
    devices.told.clear()

    made = devices.say("m1")

    assert len(devices.told) == 4
    assert [letter.reason for letter in made.letters] == ["hops"]


def test_hops_are_counted_through_timers_and_attributes() -> None:
    """Neither a delay nor a change of attributes makes a message forget how often it was passed
    on.
    """
    devices = Fleet(
        """
        chain: main
        on: {messages: [uplink, told]}
        nodes:
          - {name: wait, delay: 1s}
          - {name: keep, set_attributes: {scope: server, values: {at: "${string(now)}"}}}
        """,
        """
        chain: other
        on: {messages: attributes_updated}
        nodes:
          - name: a
            tell: {to: "${device.name == 'm1' ? 'm2' : 'm1'}", telemetry: {}}
        """,
        limits=Limits(hops_max=3),
    )
    devices.say("m2")
    devices.say("m1")

    reasons = [letter.reason for _ in range(10) for letter in devices.wait(1_000).letters]

    assert reasons == ["hops", "hops"]


def test_too_many_told() -> None:
    """Over the limit of one message nobody is told, and it is a dead letter."""
    devices = Fleet(
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: a, tell: {to: "${telemetry.to}", device_type: room}}
        """,
        limits=Limits(told_max=2),
    )

    assert devices.say("m", telemetry={"to": ["a", "b"]}).letters == []
    made = devices.say("m", telemetry={"to": ["a", "b", "c"]})

    assert [letter.reason for letter in made.letters] == ["told"]
    assert len(devices.told) == 2


CHANGE = """
chain: main
on: {messages: uplink, device_type: gateway}
nodes:
  - {name: before, set_attributes: {scope: server, values: {at: here}}}
  - {name: hand over, change_device: {to: "${telemetry.meter}"}}
  - {name: after, set_attributes: {scope: server, values: {level: "${telemetry.level}"}}}
  - {name: down, send_downlink: {bytes: "01", f_port: 1}}
  - name: say
    send: {to: archive, body: ["${device.name}", "${device.type}", "${metadata.told.by}"]}
"""


def test_change_device() -> None:
    """What comes after the node is done on the other device, with its state and link."""
    devices = fleet(CHANGE)

    made = devices.say("gw", device_type="gateway", telemetry={"meter": "m1", "level": 5})

    assert made.letters == []
    assert made.bodies == [["m1", "meter", "gw"]]
    assert devices.attributes("gw") == {"at": "here"}
    assert devices.attributes("m1") == {"level": 5}
    (downlink,) = made.downlinks
    assert (downlink.device, downlink.link is not None) == ("m1", True)


def test_change_to_itself() -> None:
    """A message that is that device's already goes on at once."""
    devices = fleet(CHANGE.replace("${metadata.told.by}", "none"))

    made = devices.say("gw", device_type="gateway", telemetry={"meter": "gw", "level": 5})

    assert made.bodies == [["gw", "gateway", "none"]]
    assert devices.told == []


def test_change_device_where_the_node_is_gone() -> None:
    """A message on its way whose node was edited away is a dead letter of the receiver."""
    devices = fleet(CHANGE)
    made = devices.bench.take(
        record(_uplink("gw", device_type="gateway", telemetry={"meter": "m1", "level": 5}))
    )
    devices.bench.books["t"] = Fleet(CHANGE.replace("name: hand over", "name: pass on")).bench.book

    made = devices.settle(made)

    (letter,) = made.letters
    assert (letter.reason, letter.key) == ("node_gone", "t/m1")
    assert letter.detail["node"] == "hand over"


def _uplink(device: str, **fields: Any) -> Any:
    from tests.unit.route.bench import uplink

    return uplink(9, id=f"{device}-9.0", device=device, **fields)


def test_change_device_to_another_kind_of_node() -> None:
    """A node of that name that hands nothing over takes no message that was on its way."""
    devices = fleet(CHANGE)
    made = devices.bench.take(
        record(_uplink("gw", device_type="gateway", telemetry={"meter": "m1", "level": 5}))
    )
    other = CHANGE.replace('change_device: {to: "${telemetry.meter}"}', "log: {message: x}")
    devices.bench.books["t"] = Fleet(other).bench.book

    made = devices.settle(made)

    assert [letter.reason for letter in made.letters] == ["node"]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("tell: {what: x}", "needs either `to`"),
        ("tell: {to: a, related: b}", "needs either `to`"),
        ("relate: {relation: r}", "needs either `to` or `from`"),
        ("relate: {relation: a/b, to: x}", "without `/`"),
        ("unrelate: {relation: r, way: up}", "to"),
        ("change_device: {}", "to"),
    ],
)
def test_faults(node: str, said: str) -> None:
    """What cannot be meant is said before it runs."""
    text = f"chain: main\non: {{messages: uplink}}\nnodes:\n  - name: a\n    {node}\n"

    problems = [problem for problem in problems_of(text) if not problem.warns]

    assert any(said in problem.message + str(problem.path) for problem in problems), problems
