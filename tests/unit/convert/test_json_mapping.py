"""JSON to JSON by expressions: names, times, lists, absent values, and faults."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.convert.codecs.codec import Given
from pipeline.convert.codecs.json_mapping import JsonMapping
from pipeline.errors import ExpressionError, MessageError


def decode(uplink: dict[str, Any], payload: Any, **metadata: Any) -> Any:
    given = Given(orjson.dumps(payload), f_port=2, metadata=metadata)
    return JsonMapping(uplink=uplink).build().decode(given)


def test_one_object() -> None:
    """Expressions read the payload, the port and the metadata; null values are left out."""
    uplink = {
        "device": "${payload.id}",
        "type": "thermostat",
        "customer": "${metadata.site}",
        "telemetry": {
            "temperature": "${payload.t / 10.0}",
            "port": "${f_port}",
            "door": "${has(payload.d) ? payload.d : null}",
        },
        "attributes": {"firmware": "${payload.fw}"},
    }
    assert decode(uplink, {"id": 7, "t": 215, "fw": "1.2"}, site="hall") == {
        "deviceName": "7",
        "deviceType": "thermostat",
        "customerName": "hall",
        "telemetry": {"temperature": 21.5, "port": 2},
        "attributes": {"firmware": "1.2"},
    }


@pytest.mark.parametrize(
    ("time", "ts"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000.5, 1_700_000_000_500),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500),
    ],
)
def test_a_list_with_times(time: Any, ts: int) -> None:
    """Each item of a list is a set of its own; times may be numbers or texts."""
    uplink = {"each": "${payload.r}", "time": "${item.at}", "telemetry": {"t": "${item.t}"}}
    assert decode(uplink, {"r": [{"at": time, "t": 1}]}) == [
        {"telemetry": {"ts": ts, "values": {"t": 1}}}
    ]


@pytest.mark.parametrize(
    ("uplink", "payload", "message"),
    [
        ({"telemetry": {"t": "${payload.x}"}}, {}, "x"),
        ({"telemetry": "${payload.t}"}, {"t": 5}, "`telemetry` gives no object"),
        ({"each": "${payload.t}", "telemetry": {}}, {"t": 5}, "gives no list"),
        ({"each": "${payload.t}", "telemetry": {}}, {"t": [1] * 5001}, "at most 5000"),
        ({"time": "${payload.t}", "telemetry": {}}, {"t": "noon"}, "no time as in RFC 3339"),
        ({"time": "${payload.t}", "telemetry": {}}, {"t": True}, "neither a number nor text"),
    ],
)
def test_refuses(uplink: dict[str, Any], payload: Any, message: str) -> None:
    """What the expressions cannot read is refused, with what they wanted."""
    with pytest.raises(MessageError, match=message):
        decode(uplink, payload)


def test_not_json() -> None:
    """A payload that is no JSON is refused."""
    with pytest.raises(MessageError, match="not JSON"):
        JsonMapping(uplink={"telemetry": {}}).build().decode(Given(b"{"))


def test_downlink() -> None:
    """A downlink is JSON made from the rule's fields."""
    codec = JsonMapping(downlink={"set": {"target": "${fields.target}"}, "x": "${null}"}).build()
    made = codec.encode({"target": 21.5}, None)
    assert (made.payload, made.text) == (b'{"set":{"target":21.5}}', True)
    with pytest.raises(ExpressionError):
        codec.encode({}, None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs `uplink` or `downlink`"),
        ({"uplink": {}}, "needs `telemetry` or `attributes`"),
        ({"uplink": {"telemetry": {"t": "${payload.}"}}}, "telemetry"),
        ({"uplink": {"telemetry": {"t": "${telemetry.t}"}}}, "telemetry"),
        ({"downlink": "${payload}"}, "downlink"),
    ],
)
def test_faults(config: dict[str, Any], message: str) -> None:
    """Expressions that cannot be meant are found when the rules are read."""
    with pytest.raises(ValidationError, match=message):
        JsonMapping(**config)
