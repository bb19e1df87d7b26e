"""Each node: what it decides, and what it does to message, state and outputs."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.downlink import DownlinkRequest
from pipeline.route.node import nodes
from tests.unit.route.bench import KEY, START_MS, Bench, Made, record, rulebook, uplink


def run(text: str, **fields: Any) -> tuple[Bench, Made]:
    """Run nodes on one uplink."""
    bench = Bench(rulebook("chain: main\non: {messages: uplink}\nnodes:\n" + text))
    return bench, bench.take(record(uplink(**fields)))


def body_of(body: str, **fields: Any) -> Any:
    """What a `send` node makes of a body."""
    _, made = run(f"  - {{name: a, send: {{to: archive, body: {body}}}}}", **fields)
    assert made.letters == []
    return made.bodies[0]


def request_of(config: str, **fields: Any) -> DownlinkRequest:
    """What a `send_downlink` node asks for."""
    _, made = run(f"  - {{name: a, send_downlink: {config}}}", **fields)
    assert made.letters == []
    return made.downlinks[0].request


def test_all_nodes_are_found() -> None:
    """The folder is scanned; a node is called as its module."""
    assert {"filter", "switch", "set", "set_attributes", "send_downlink", "send", "log"} <= set(
        nodes()
    )
    for verb, node in nodes().items():
        assert node.__module__.rpartition(".")[2] == verb


@pytest.mark.parametrize(("battery", "reached"), [(5, "low"), (50, "half"), (90, "else")])
def test_switch_takes_the_first_true_case(battery: int, reached: str) -> None:
    """The first case that is true decides; none: `otherwise`."""
    _, made = run(
        """
  - name: which
    switch:
      - {when: telemetry.battery < 10, to: low}
      - {when: telemetry.battery < 60, to: half}
    otherwise: else
  - {name: low, send: {to: archive, body: low}, then: stop}
  - {name: half, send: {to: archive, body: half}, then: stop}
  - {name: else, send: {to: archive, body: else}}
""",
        telemetry={"battery": battery},
    )

    assert made.bodies == [reached]


def test_filter_needs_a_bool() -> None:
    """A filter whose expression gives no bool fails on the message."""
    _, made = run("  - {name: a, filter: telemetry.temperature}")

    assert [letter.reason for letter in made.letters] == ["expression"]


def test_set_makes_a_new_message() -> None:
    """Values are set by path, all from the message as it came; later nodes see them."""
    _, made = run(
        """
  - name: shape
    set:
      fields:
        telemetry.temperature: "${telemetry.temperature * 2.0}"
        telemetry.before: "${telemetry.temperature}"
        metadata.site.floor: 3
        metadata.site.name: A
  - {name: archive, send: {to: archive}}
""",
        metadata={"site": {"floor": 1, "town": "Delft"}},
    )

    (body,) = made.bodies
    assert body["telemetry"] == {"temperature": 41.0, "battery": 90, "before": 20.5}
    assert body["metadata"] == {"site": {"floor": 3, "name": "A", "town": "Delft"}}


def test_set_through_a_value() -> None:
    """A path through something that is no mapping fails on the message."""
    _, made = run("  - {name: a, set: {fields: {telemetry.temperature.x: 1}}}")

    assert [letter.reason for letter in made.letters] == ["set"]


def test_message_is_never_changed() -> None:
    """A second chain sees the message as it came, whatever the first one set."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - {name: shape, set: {fields: {telemetry.temperature: 0, metadata.x.y: 1}}}
            """,
            """
            chain: other
            on: {messages: uplink}
            nodes:
              - {name: archive, send: {to: archive, body: ["${telemetry}", "${metadata}"]}}
            """,
        )
    )

    made = bench.take(record(uplink(metadata={"x": {"z": 2}})))

    assert made.bodies == [[{"temperature": 20.5, "battery": 90}, {"x": {"z": 2}}]]


def test_set_attributes_takes_expressions() -> None:
    """Attributes are set in their scope, as of the message's time."""
    bench, _ = run(
        """
  - name: remember
    set_attributes: {scope: server, values: {warm: "${telemetry.temperature > 20}", n: [1]}}
"""
    )

    part = bench.parts[KEY]["attributes/server"]
    assert part["values"] == {"warm": True, "n": [1]}
    assert part["times"] == {"warm": START_MS + 1_000, "n": START_MS + 1_000}


def test_set_attributes_takes_a_whole_mapping() -> None:
    """One expression may give all of them; where it gives something else, the node fails."""
    bench, _ = run(
        """
  - name: remember
    set_attributes: {scope: server, values: "${telemetry}"}
"""
    )
    assert bench.parts[KEY]["attributes/server"]["values"] == {"temperature": 20.5, "battery": 90}

    _, made = run('  - {name: a, set_attributes: {scope: server, values: "${telemetry.battery}"}}')
    assert [letter.reason for letter in made.letters] == ["attributes"]


@pytest.mark.parametrize(
    ("written", "payload"),
    [
        ('"01ff"', b"\x01\xff"),
        ('"01 FF"', b"\x01\xff"),
        ('"AQ=="', b"\x01"),
        ('"hex:01"', b"\x01"),
        ('"base64:abcd"', b"i\xb7\x1d"),
        ("\"${b'abc'}\"", b"abc"),
        ('"${[1, 255]}"', b"\x01\xff"),
        ('"${telemetry.raw}"', b"\x02"),
        ('"${telemetry.raw}${telemetry.raw}"', b"\x02\x02"),
        ('""', b""),
    ],
)
def test_downlink_of_bytes(written: str, payload: bytes) -> None:
    """Bytes are hex, base64, or an expression that gives either, bytes or numbers."""
    request = request_of(f"{{bytes: {written}}}", telemetry={"raw": "02"})

    assert request.payload == payload
    assert request.fields is None


@pytest.mark.parametrize(
    "written", ['"xyz!"', '"${[1, 256]}"', '"${[true]}"', '"${1.5}"', '"hex:1"', '"${null}"']
)
def test_downlink_of_bad_bytes(written: str) -> None:
    """What cannot be bytes fails on the message, and nothing is asked for."""
    _, made = run(f"  - {{name: a, send_downlink: {{bytes: {written}}}}}")

    assert [letter.reason for letter in made.letters] == ["downlink_bytes"]
    assert made.downlinks == []


def test_downlink_fields() -> None:
    """All that the YAML says of a downlink is in the request."""
    request = request_of(
        "{payload: {on: '${telemetry.battery > 50}'}, f_port: '${telemetry.battery}', "
        "confirmed: true, queue: first, priority: high, expires_in: 90s, "
        "supersede_key: '${device.name}-x'}"
    )

    assert request.fields == {"on": True}
    assert (request.f_port, request.confirmed) == (90, True)
    assert (request.queue, request.priority) == ("first", "high")
    assert request.expires_at_ms == START_MS + 90_000
    assert request.supersede_key == "dev-x"


@pytest.mark.parametrize("port", ["${telemetry.battery * 10}", "${'x'}", "${1.5}"])
def test_downlink_of_bad_port(port: str) -> None:
    """A port that an expression makes is checked on the message."""
    _, made = run(f'  - {{name: a, send_downlink: {{payload: {{}}, f_port: "{port}"}}}}')

    assert [letter.reason for letter in made.letters] == ["f_port"]


def test_send_gives_the_whole_message() -> None:
    """Without a body the message is sent in its plain form."""
    _, made = run(
        "  - {name: a, send: {to: application}}", attributes={"version": "1"}, customer="c"
    )

    (delivery,) = made.deliveries
    assert delivery.destination == "application"
    assert (delivery.tenant, delivery.device, delivery.time_ms) == ("t", "dev", START_MS)
    assert delivery.body == {
        "id": "u1.0",
        "device": "dev",
        "device_type": "thermostat",
        "integration": "lora",
        "type": "uplink",
        "time": "2025-11-21T08:00:01.000Z",
        "telemetry": {"temperature": 20.5, "battery": 90},
        "attributes": {"version": "1"},
        "metadata": {"rssi": -80},
    }


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("device", {"name": "dev", "tenant": "t", "integration": "lora", "type": "thermostat",
                    "kind": "device", "dev_eui": "AA", "customer": "c", "group": ""}),
        ("message.type", "uplink"),
        ("message.time", "2025-11-21T08:00:01Z"),
        ("message.received", "2025-11-21T08:00:01Z"),
        ("[message.f_port, message.f_cnt, message.confirmed]", [1, 7, True]),
        ("message.payload", "AQI="),
        ("metadata.rssi", -80),
        ("attributes.client.v", "1"),
        ("changed", []),
        ("previous", {}),
        ("now", "2025-11-21T08:00:00Z"),
        ("now - message.time", "-1s"),
    ],
)  # fmt: skip
def test_names_of_expressions(expression: str, value: Any) -> None:
    """Expressions see the message, its device, attributes and the time."""
    body = body_of(
        f'"${{{expression}}}"',
        attributes={"v": "1"},
        customer="c",
        dev_eui="AA",
        f_port=1,
        f_cnt=7,
        confirmed=True,
        payload=b"\1\2",
    )

    assert body == value


def test_time_out_of_range() -> None:
    """A time that no calendar has fails on the message."""
    _, made = run("  - {name: a, filter: message.time < now}", time_ms=10**18)

    assert [letter.reason for letter in made.letters] == ["expression"]


def test_log_is_data() -> None:
    """A line has its level, and where it was said."""
    bench, _ = run('  - {name: a, log: {level: error, message: "${telemetry.temperature} °C"}}')

    (line,) = bench.lines
    assert (line.level, line.message, line.tenant, line.device) == ("error", "20.5 °C", "t", "dev")
    assert (line.chain, line.node, line.event_id) == ("main", "a", "u1.0")


@pytest.mark.parametrize(("value", "text"), [("20.5", "20.5"), ("[1, 'a']", '[1,"a"]')])
def test_log_of_what_is_no_text(value: str, text: str) -> None:
    """An expression alone that gives no text is said as JSON."""
    bench, made = run(f'  - {{name: a, log: {{message: "${{{value}}}"}}}}')

    assert made.letters == []
    assert [line.message for line in bench.lines] == [text]
