"""The declarative layout of binary payloads, both ways, and the faults it finds in itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.convert.codecs.codec import Given
from pipeline.convert.codecs.layout import Layout
from pipeline.errors import MessageError


def up(*fields: dict[str, Any], **config: Any) -> Any:
    return Layout(uplink=[{"fields": list(fields)}], **config).build()


def decode(codec: Any, payload: str, f_port: int = 1) -> dict[str, Any]:
    return codec.decode(Given(bytes.fromhex(payload), f_port))


@pytest.mark.parametrize(
    ("field", "payload", "value"),
    [
        ({"type": "int8"}, "ff", -1),
        ({"type": "uint16"}, "0102", 258),
        ({"type": "uint16", "endianness": "little"}, "0102", 513),
        ({"type": "int24"}, "fffffe", -2),
        ({"type": "uint64"}, "ffffffffffffffff", 2**64 - 1),
        ({"type": "int16", "scale": 0.1}, "00d7", 21.5),
        ({"type": "int16", "scale": 0.01, "plus": -40}, "1388", 10.0),
        ({"type": "uint16", "scale": 0.35}, "0003", 1.05),
        ({"type": "uint8", "scale": 2}, "05", 10),
        ({"type": "uint8", "plus": 100}, "05", 105),
        ({"type": "float32"}, "41ac0000", 21.5),
        ({"type": "float16", "endianness": "little"}, "003c", 1.0),
        ({"type": "float64"}, "3ff0000000000000", 1.0),
        ({"type": "bool"}, "02", True),
        ({"type": "hex", "length": 2}, "0aff", "0aff"),
        ({"type": "text", "length": "rest"}, "68690000", "hi"),
        ({"type": "base64", "length": 2}, "0102", "AQI="),
        ({"type": "uint8", "enum": {0: "off", 1: "heat"}}, "01", "heat"),
    ],
)
def test_types(field: dict[str, Any], payload: str, value: Any) -> None:
    """Each type is read with its width, sign, order, scale and words."""
    result = decode(up({"name": "x", **field}), payload)
    assert result == {"data": {"x": value}, "warnings": []}
    assert type(result["data"]["x"]) is type(value) or field.get("scale") == 2


def test_one_after_the_other_and_at_a_place() -> None:
    """Fields follow each other; an offset goes to a place, from the end if negative."""
    codec = up(
        {"name": "a", "type": "uint8"},
        {"skip": 1},
        {"name": "b", "type": "uint8"},
        {"name": "last", "type": "uint8", "offset": -1},
        {"name": "first", "type": "uint8", "offset": 0},
        {"name": "second", "type": "uint8"},
        {"name": "rest", "type": "hex", "length": "rest"},
    )
    assert decode(codec, "0102030405")["data"] == {
        "a": 1, "b": 3, "last": 5, "first": 1, "second": 2, "rest": "030405",
    }  # fmt: skip


def test_bits() -> None:
    """Bits count from the lowest; one is true or false, several are a number or a word."""
    codec = up(
        {
            "type": "uint8",
            "bits": [
                {"name": "open", "at": 0},
                {"name": "level", "at": 1, "size": 3},
                {"name": "mode", "at": 6, "size": 2, "enum": {2: "eco"}},
                {"name": "volt", "at": 1, "size": 3, "scale": 0.1},
            ],
        }
    )
    assert decode(codec, "8b")["data"] == {"open": True, "level": 5, "mode": "eco", "volt": 0.5}


def test_groups() -> None:
    """A group repeats a number of times, as often as a field says, or to the end."""
    sample = [{"name": "t", "type": "int8"}]
    assert decode(up({"name": "s", "repeat": 2, "fields": sample}), "01ff")["data"] == {
        "s": [{"t": 1}, {"t": -1}]
    }
    counted = up(
        {"name": "n", "type": "uint8"},
        {"name": "s", "repeat": "n", "fields": sample},
        {"name": "end", "type": "uint8"},
    )
    assert decode(counted, "02010207")["data"] == {"n": 2, "s": [{"t": 1}, {"t": 2}], "end": 7}
    assert decode(up({"name": "s", "repeat": "rest", "fields": sample}), "")["data"] == {"s": []}


def test_missing_and_optional() -> None:
    """A number that says «no value» leaves the field out, as the end does for optional ones."""
    codec = up(
        {"name": "t", "type": "int16", "missing": -32768},
        {"name": "h", "type": "uint8", "missing": [254, 255], "optional": True},
    )
    assert decode(codec, "8000ff")["data"] == {}
    assert decode(codec, "000105")["data"] == {"t": 1, "h": 5}
    assert decode(codec, "0001") == {"data": {"t": 1}, "warnings": []}


def test_messages_by_port_and_value() -> None:
    """The first message whose port and value fit is taken."""
    config = {
        "uplink": [
            {"f_port": [1, 2], "where": {"equals": 1}, "fields": [{"name": "a", "type": "uint16"}]},
            {"f_port": 1, "fields": [{"name": "b", "type": "uint16"}]},
            {"f_port": 3, "where": {"offset": 1, "type": "uint8", "equals": 9},
             "fields": [{"name": "c", "type": "uint16"}]},
        ]
    }  # fmt: skip
    codec = Layout(**config).build()
    assert decode(codec, "0105", 2)["data"] == {"a": 261}
    assert decode(codec, "0205", 1)["data"] == {"b": 517}
    assert decode(codec, "0009", 3)["data"] == {"c": 9}
    for payload, port in (("0205", 2), ("0001", 3), ("00", 3), ("01", 5)):
        with pytest.raises(MessageError, match="no message of the layout fits"):
            decode(codec, payload, port)


def test_warnings() -> None:
    """Bytes left over, unknown words and numbers that are none are told."""
    codec = up({"name": "m", "type": "uint8", "enum": {0: "off"}}, {"name": "f", "type": "float32"})
    result = decode(codec, "077fc0000000")
    assert result["data"] == {"m": 7}
    assert result["warnings"] == [
        "`m` is 7, for which there is no word",
        "`f` is nan, and left out",
        "1 bytes after the last field were not read",
    ]


def test_too_short() -> None:
    """A payload that ends before a field is refused, with both lengths."""
    with pytest.raises(MessageError, match="has 1 bytes; `x` is at byte 0 and has 2"):
        decode(up({"name": "x", "type": "int16"}), "01")
    with pytest.raises(MessageError, match="`x` is at byte 0"):
        decode(up({"name": "x", "type": "int16", "offset": -2}), "01")


def test_groups_are_bounded() -> None:
    """A group cannot make more values than a message may have, nor repeat without end."""
    inner = {"name": "b", "repeat": 1000, "fields": [{"name": "c", "type": "uint8", "offset": 0}]}
    codec = up({"name": "a", "repeat": 1000, "fields": [inner]})
    with pytest.raises(MessageError, match="more than 5000 values"):
        decode(codec, "01")
    endless = up({"name": "a", "repeat": "rest", "fields": [
        {"name": "c", "type": "uint8", "offset": 0}]})  # fmt: skip
    with pytest.raises(MessageError, match="repeat without end"):
        decode(endless, "0102")


DOWN = {
    "downlink": [
        {
            "f_port": 10,
            "fields": [
                {"type": "uint8", "value": 1},
                {"name": "target", "type": "int16", "scale": 0.1},
                {"type": "uint8", "bits": [{"name": "on", "at": 0},
                                           {"name": "fan", "at": 4, "size": 2, "default": 2}]},
                {"name": "mode", "type": "uint8", "enum": {0: "off", 3: "eco"}, "default": "eco"},
            ],
        },
        {
            "f_port": 11,
            "fields": [
                {"name": "slots", "repeat": "rest", "fields": [{"name": "h", "type": "uint8"}]},
                {"name": "tail", "type": "hex", "length": 2, "offset": 4, "optional": True},
            ],
        },
    ]
}  # fmt: skip


def test_encodes() -> None:
    """The first message whose names are all there is written; what is left over is told."""
    codec = Layout(**DOWN).build()
    made = codec.encode({"target": -0.5, "on": True, "other": 1}, None)
    assert (made.payload.hex(), made.f_port) == ("01fffb2103", 10)
    assert made.warnings == ("`other` is not sent",)
    made = codec.encode({"slots": [{"h": 1}, {"h": 2}], "tail": "0a"}, None)
    assert (made.payload.hex(), made.f_port) == ("010200000a00", 11)
    assert codec.encode({"slots": []}, 11).payload == b""


@pytest.mark.parametrize(
    ("fields", "f_port", "message"),
    [
        ({"target": 1}, None, "`on` is missing"),
        ({"target": 1, "on": True}, 11, "`slots` is missing"),
        ({"target": 1, "on": True}, 99, "port 99"),
        ({"target": 5000, "on": True}, None, "does not fit int16"),
        ({"target": "x", "on": True}, None, "must be a number"),
        ({"target": 1, "on": 2}, None, "does not fit 1 bits"),
        ({"target": 1, "on": True, "mode": "x"}, None, "it may be off, eco"),
        ({"slots": 5}, None, "must be a list of objects"),
        ({"slots": [{}]}, None, r"slots\[0\].h` is missing"),
        ({"slots": [], "tail": "zz"}, None, "is not hex"),
        ({"slots": [], "tail": "010203"}, None, "may have 2"),
    ],
)
def test_refuses_fields(fields: dict[str, Any], f_port: int | None, message: str) -> None:
    """What does not fit is refused, with its field and what it may be."""
    with pytest.raises(MessageError, match=message):
        Layout(**DOWN).build().encode(fields, f_port)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"name": "x"}, "needs one of `type`, `skip` and `repeat`"),
        ({"name": "x", "type": "int9"}, "`int9` is no type"),
        ({"name": "x", "type": "text"}, "needs a `length`"),
        ({"name": "x", "type": "int8", "length": 2}, "`length` is for"),
        ({"name": "x", "type": "float32", "enum": {1: "a"}}, "whole numbers"),
        ({"type": "int8"}, "needs a `name`"),
        ({"type": "uint8", "bits": [{"name": "b", "at": 7, "size": 2}]}, "not within uint8"),
        ({"name": "x", "type": "int8", "scale": 0}, "must not be 0"),
        ({"name": "x", "repeat": "n", "fields": [{"skip": 1}]}, "names no field before it"),
        ({"name": "x", "repeat": 0, "fields": [{"skip": 1}]}, "from 1 to 1000"),
        ({"name": "a b", "type": "int8"}, "without spaces"),
        ({"name": "x", "tipe": "int8"}, "tipe"),
    ],
)
def test_faults_of_a_layout(field: dict[str, Any], message: str) -> None:
    """What cannot be meant is found when the rules are read."""
    with pytest.raises(ValidationError, match=message):
        up(field)


@given(st.integers(-32768, 32767), st.booleans(), st.integers(0, 3))
def test_encode_then_decode_is_identity(units: int, on: bool, fan: int) -> None:
    """With the same fields both ways, what was encoded is decoded to the same."""
    fields = [
        {"name": "target", "type": "int16", "scale": 0.1},
        {"type": "uint8", "bits": [{"name": "on", "at": 0}, {"name": "fan", "at": 4, "size": 2}]},
    ]
    codec = Layout(uplink=[{"fields": fields}], downlink=[{"fields": fields}]).build()
    values = {"target": units / 10, "on": on, "fan": fan}
    assert codec.decode(Given(codec.encode(values, 1).payload, 1))["data"] == values
