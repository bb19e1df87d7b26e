"""The dialect `opcua`: values of one notification → uplinks; downlinks → writes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.opcua import DIALECT, OpcuaOptions
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.uplink import Uplink

NOW_MS = 1_790_000_000_000


def read(*values: dict[str, Any], names: dict[str, str] | None = None, **options: Any) -> Any:
    body = {"device": "press", "values": list(values), "names": names or {}}
    request = Request(orjson.dumps(body))
    return DIALECT.read(request, OpcuaOptions.model_validate(options), "{device_id}")


def value(field: str, value: Any, after_ms: int = 0, **more: Any) -> dict[str, Any]:
    return {"field": field, "value": value, "time": NOW_MS + after_ms, **more}


def shown(uplinks: list[Uplink]) -> list[tuple[Any, Any]]:
    return [(each.fields, (each.time_ms or 0) - NOW_MS) for each in uplinks]


def test_one_notification_is_one_uplink() -> None:
    """Values of about one time are one message, at the latest of their times."""
    (uplink,) = read(value("a", 1, 0), value("b", 2.5, 200), names={"line": "L1"})

    assert (uplink.fields, uplink.time_ms) == ({"a": 1, "b": 2.5}, NOW_MS + 200)
    assert uplink.metadata == {"line": "L1", "times": {"a": NOW_MS}}
    assert orjson.loads(uplink.payload) == uplink.fields


def test_values_of_a_queue_are_told_in_order() -> None:
    """A field that comes several times makes several uplinks, each with what is of its time."""
    uplinks = read(value("a", 3, 300), value("b", 1, 110), value("a", 1, 100), value("a", 2, 200))

    assert shown(uplinks) == [({"a": 1, "b": 1}, 110), ({"a": 2}, 200), ({"a": 3}, 300)]
    assert len({each.repeat_key for each in uplinks}) == 3


def test_how_far_apart_is_the_users_to_say() -> None:
    """`together_s: 0` keeps times apart; a longer one puts them together."""
    values = value("a", 1, 0), value("b", 2, 5_000)

    assert len(read(*values, together_s=0)) == 2
    assert len(read(*values, together_s=1)) == 2
    assert len(read(*values, together_s=10)) == 1


def test_bad_quality_is_metadata() -> None:
    """A Bad value is no field; an Uncertain one is, and both are told of."""
    values = (
        value("a", 1, status="BadSensorFailure"),
        value("b", 2, status="UncertainLastUsableValue"),
    )
    (uplink,) = read(*values)
    status = {"a": "BadSensorFailure", "b": "UncertainLastUsableValue"}

    assert (uplink.fields, uplink.metadata) == ({"b": 2}, {"status": status})
    (kept,) = read(*values, bad_values=True)
    assert kept.fields == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"device":"d","values":[]}',
        b'{"device":"d","values":[{"value":1}]}',
        b'{"device":"","values":[{"field":"a"}]}',
        b'{"device":"a\\u0000b","values":[{"field":"a"}]}',
    ],
)
def test_what_is_no_body_is_refused(body: bytes) -> None:
    """A body that no transport of ours wrote is the sender's fault."""
    with pytest.raises(MessageError):
        DIALECT.read(Request(body), OpcuaOptions(), "{device_id}")


def downlink(**changes: Any) -> Downlink:
    return Downlink(id="l1", tenant="t", device="press", integration="i", state=State.SENDING,
                    requested_ms=1, changed_ms=1, **changes)  # fmt: skip


def test_what_a_downlink_writes() -> None:
    """Fields as they are, bytes that are a JSON object, or bytes to the field that takes them."""
    options = OpcuaOptions()
    assert DIALECT.writes(downlink(fields={"set": 1}), options) == {"set": 1}
    assert DIALECT.writes(downlink(payload=b'{"set": 2}'), options) == {"set": 2}
    given = OpcuaOptions(payload_field="raw")
    assert DIALECT.writes(downlink(payload=b"\xff"), given) == {"raw": "/w=="}
    for empty in (downlink(payload=b"\xff"), downlink(fields={})):
        with pytest.raises(MessageError, match="names no field"):
            DIALECT.writes(empty, options)
