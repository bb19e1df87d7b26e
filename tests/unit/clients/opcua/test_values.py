"""Values of OPC-UA ↔ JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from asyncua import ua

from pipeline.clients.opcua.values import overflowed, plain, value_of, variant_of
from pipeline.errors import MessageError

T = ua.VariantType
TIME = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "kind", "made"),
    [
        (True, T.Boolean, True),
        (255, T.Byte, 255),
        (3.0, T.Int16, 3),
        (2**64 - 1, T.UInt64, 2**64 - 1),
        (2, T.Double, 2.0),
        ("x", T.String, "x"),
        ("AP8=", T.ByteString, b"\x00\xff"),
        ("2026-01-02T04:04:05.6+01:00", T.DateTime, TIME),
        ("00000000-0000-0000-0000-000000000001", T.Guid, UUID(int=1)),
        ("warm", T.LocalizedText, ua.LocalizedText("warm")),
        ("ns=2;s=x", T.NodeId, ua.NodeId("x", 2)),
    ],
)
def test_json_becomes_the_nodes_own_type(value: Any, kind: Any, made: Any) -> None:
    """Each type takes its JSON, and nothing else is written."""
    variant = variant_of("f", value, kind, array=False)
    assert (variant.Value, variant.VariantType) == (made, kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, T.Boolean), ("1", T.Int32), (256, T.Byte), (-1, T.UInt16), (1.5, T.Int32),
        (True, T.Int32), (True, T.Double), (1e300, T.Float), (10**400, T.Double), ("x", T.Double),
        (1, T.String), ("?", T.ByteString), ("soon", T.DateTime), ("x", T.Guid),
        ("no node", T.NodeId), ("x", T.ExtensionObject), (None, T.String), ([1], T.Int32),
        ({}, T.String),
    ],
)  # fmt: skip
def test_what_a_node_cannot_be_is_refused(value: Any, kind: Any) -> None:
    """A value of another type, or out of range, is the message's fault, and says its field."""
    with pytest.raises(MessageError) as caught:
        variant_of("setpoint", value, kind, array=False)
    assert caught.value.detail["field"] == "setpoint"


def test_arrays_keep_their_shape() -> None:
    """A list is an array; nested lists have dimensions; ragged ones are refused."""
    flat = variant_of("f", [1, 2], T.Int32, array=True)
    assert (flat.Value, flat.is_array) == ([1, 2], True)
    nested = variant_of("f", [[1, 2], [3, 4], [5, 6]], T.Int32, array=True)
    assert (nested.Value, nested.Dimensions) == ([[1, 2], [3, 4], [5, 6]], [3, 2])
    assert variant_of("f", [], T.Int32, array=True).Value == []
    for bad in ([[1], [2, 3]], 1, [[[1]] * 3, 2]):
        with pytest.raises(MessageError):
            variant_of("f", bad, T.Int32, array=True)


def test_what_was_written_reads_back() -> None:
    """JSON → OPC-UA's bytes → JSON is the same, for each type and for matrices."""
    from asyncua.ua.ua_binary import variant_from_binary, variant_to_binary

    for value, kind in [
        (7, T.SByte), (1.5, T.Double), ("é", T.String), ("AP8=", T.ByteString),
        ("2026-01-02T03:04:05.600Z", T.DateTime), ([[1, 2], [3, 4]], T.UInt32), ([], T.Boolean),
    ]:  # fmt: skip
        made = variant_of("f", value, kind, array=isinstance(value, list))
        again = variant_from_binary(ua.utils.Buffer(variant_to_binary(made)))
        assert plain(again.Value) == value


def test_a_value_says_its_time_and_status() -> None:
    """The source's time, in milliseconds; the status by its name, without the bits beside it."""
    code = ua.StatusCode(ua.StatusCodes.UncertainLastUsableValue | 0x0480)
    said = ua.DataValue(ua.Variant(1.5), code, SourceTimestamp=TIME, ServerTimestamp=TIME)
    made = value_of("t", "i=1", said)
    assert (made.value, made.type, made.status) == (1.5, "Double", "UncertainLastUsableValue")
    assert made.time == round(TIME.timestamp() * 1_000)
    assert overflowed(said)
    assert not overflowed(ua.DataValue(ua.Variant(1)))
    never = ua.DataValue(ua.Variant(1), SourceTimestamp=datetime(1601, 1, 1, tzinfo=UTC))
    assert value_of("t", "i=1", never).time is None


def test_what_json_has_not() -> None:
    """NaN and infinite numbers are null, and say so; inside lists they are null."""
    nan = value_of("t", "i=1", ua.DataValue(ua.Variant(float("nan"))))
    assert (nan.value, nan.status) == (None, "NaN")
    most = value_of("t", "i=1", ua.DataValue(ua.Variant(float("-inf"))))
    assert (most.value, most.status) == (None, "Infinite")
    listed = value_of("t", "i=1", ua.DataValue(ua.Variant([1.0, float("nan")])))
    assert listed.value == [1.0, None]


def test_a_value_nested_without_end_is_told_as_such() -> None:
    """What is too deep for any reader has a Bad status, and no value."""
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    made = value_of("t", "i=1", ua.DataValue(ua.Variant(deep, T.Int32)))
    assert (made.value, made.status) == (None, "BadEncodingLimitsExceeded")


def test_structures_are_objects() -> None:
    """One that the standard has is an object by field; an unknown one its type and bytes."""
    assert plain(ua.Range(1.0, 2.0)) == {"Low": 1.0, "High": 2.0}
    unknown = plain(ua.ExtensionObject(ua.NodeId(5, 2), b"\x01"))
    assert orjson.loads(orjson.dumps(unknown))["Body"] == "AQ=="
