"""CayenneLPP: the vectors of its document and of The Things Stack, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.convert.codecs.cayenne_lpp import CayenneLpp
from pipeline.convert.codecs.codec import Given
from pipeline.errors import MessageError


def decode(payload: str, **config: Any) -> dict[str, Any]:
    return CayenneLpp(**config).build().decode(Given(bytes.fromhex(payload)))["data"]


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        ("03670110 056700FF", {"temperature_3": 27.2, "temperature_5": 25.5}),
        ("007327BF 006700DE", {"barometric_pressure_0": 1017.5, "temperature_0": 22.2}),
        ("0167FFD7", {"temperature_1": -4.1}),
        ("067104D2FB2E0000", {"accelerometer_6": {"x": 1.234, "y": -1.234, "z": 0.0}}),
        (
            "018806765F F2960A 0003E8",
            {"gps_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10.0}},
        ),
        ("000001 010100", {"digital_in_0": 1, "digital_out_1": 0}),
        ("02020141 0203FEBF", {"analog_in_2": 3.21, "analog_out_2": -3.21}),
        ("0165FFFF 026601", {"luminosity_1": 65535, "presence_2": 1}),
        ("046855", {"relative_humidity_4": 42.5}),
        ("0886 0001 0002 FFFD", {"gyrometer_8": {"x": 0.01, "y": 0.02, "z": -0.03}}),
        ("0174014A 01780A 018EFF", {"voltage_1": 3.3, "percentage_1": 10, "switch_1": 255}),
        ("", {}),
    ],
)
def test_decodes(payload: str, data: dict[str, Any]) -> None:
    """Each type has its size, sign and scale, and is named by type and channel."""
    assert decode(payload) == data


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("03", "byte 0 is left over"),
        ("036701", "temperature has 2 bytes, here are 1"),
        ("0167001005FF00", "byte 5: there is no type 255"),
    ],
)
def test_refuses(payload: str, message: str) -> None:
    """What is no CayenneLPP is refused, with the byte where it goes wrong."""
    with pytest.raises(MessageError, match=message):
        decode(payload)


def test_other_names() -> None:
    """Names that the user gives stand for values, both ways."""
    names = {"temperature_3": "water"}
    assert decode("03670110", names=names) == {"water": 27.2}
    made = CayenneLpp(names=names, f_port=4).build().encode({"water": 27.2}, None)
    assert (made.payload.hex(), made.f_port) == ("03670110", 4)


def test_encodes_downlinks() -> None:
    """`value_<channel>` is the format's downlink; what is no value of it is told."""
    made = CayenneLpp().build().encode({"value_5": -1.5, "mode": "x", "digital_out_2": True}, 9)
    assert (made.payload.hex(), made.f_port) == ("05ff6a020101", 9)
    assert made.warnings == ("`mode` is no value of CayenneLPP, like `temperature_1`",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no value of CayenneLPP to send"),
        ({"temperature_1": "x"}, "`temperature_1` must be a number"),
        ({"temperature_1": 5000}, "it must be from -3276.8 to 3276.7"),
        ({"gps_1": 5}, "must be an object with latitude, longitude, altitude"),
        ({"accelerometer_1": {"x": 1}}, "must be a number"),
        ({"temperature_256": 1}, "no value of CayenneLPP"),
    ],
)
def test_refuses_fields(fields: dict[str, Any], message: str) -> None:
    """What cannot be sent is refused, with its field and what it may be."""
    with pytest.raises(MessageError, match=message):
        CayenneLpp().build().encode(fields, 1)


@given(
    st.dictionaries(
        st.builds("{}_{}".format, st.sampled_from(["temperature", "analog_in"]),
                  st.integers(0, 255)),
        st.integers(-32768, 32767).map(lambda units: units / 10), min_size=1,
    ).map(lambda data: {k: v / 10 if k[0] == "a" else v for k, v in data.items()})
)  # fmt: skip
def test_encode_then_decode_is_identity(data: dict[str, float]) -> None:
    """What was encoded is decoded to the same."""
    codec = CayenneLpp().build()
    assert codec.decode(Given(codec.encode(data, 1).payload))["data"] == pytest.approx(data)


@given(st.binary(max_size=60))
def test_any_bytes(payload: bytes) -> None:
    """Whatever comes is decoded or refused; nothing else is raised."""
    try:
        CayenneLpp().build().decode(Given(payload))
    except MessageError as fault:
        refused = fault.code
    else:
        return
    assert refused == "codec"
