"""SenML: the examples of RFC 8428, in JSON and CBOR, and its rules for what must be refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.convert.codecs.cbor import read_cbor, write_cbor
from pipeline.convert.codecs.codec import Given
from pipeline.convert.codecs.senml import SenMl
from pipeline.errors import MessageError

NOW_MS = 1_700_000_000_000


def decode(pack: Any, **config: Any) -> Any:
    payload = pack if isinstance(pack, bytes) else orjson.dumps(pack)
    return SenMl(**config).build().decode(Given(payload, time_ms=NOW_MS))


def test_one_value_now() -> None:
    """A record without a time is of the message's own (RFC 8428, 5.1.1)."""
    pack = [{"n": "urn:dev:ow:10e2073a01080063", "u": "Cel", "v": 23.1}]
    assert decode(pack) == {"telemetry": {"urn:dev:ow:10e2073a01080063": 23.1}}


def test_base_values() -> None:
    """Base name, time and unit hold until they change; sets are by time (5.1.3)."""
    pack = [
        {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e9, "bu": "A", "bver": 5,
         "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1.3},
        {"n": "current", "v": 1.7},
    ]  # fmt: skip
    assert decode(pack, device="base_name", units=True) == {
        "deviceName": "urn:dev:ow:10e2073a0108006",
        "attributes": {"voltage_unit": "V", "current_unit": "A"},
        "telemetry": [
            {"ts": 1276020071001, "values": {"current": 1.2}},
            {"ts": 1276020072001, "values": {"current": 1.3}},
            {"ts": 1276020076001, "values": {"voltage": 120.1, "current": 1.7}},
        ],
    }
    full = decode(pack[:1], names="full")
    assert list(full["telemetry"]["values"]) == ["urn:dev:ow:10e2073a0108006:voltage"]


def test_several_devices() -> None:
    """Each base name is a device, where the user says so."""
    pack = [{"bn": "a:", "n": "t", "v": 1}, {"bn": "b:", "n": "t", "v": 2}]
    assert decode(pack, device="base_name") == [
        {"deviceName": "a", "telemetry": {"t": 1}},
        {"deviceName": "b", "telemetry": {"t": 2}},
    ]


def test_kinds_of_values() -> None:
    """Texts, booleans, data, sums and base values are read (5.1.6)."""
    pack = [
        {"bn": "urn:x:", "bv": 20, "n": "temp", "v": 1.5},
        {"n": "label", "vs": "Machine Room"},
        {"n": "open", "vb": False},
        {"n": "nfc", "vd": "aGkgCg"},
        {"n": "energy", "v": 3, "s": 100},
    ]
    assert decode(pack)["telemetry"] == {
        "temp": 21.5,
        "label": "Machine Room",
        "open": False,
        "nfc": "aGkgCg",
        "energy": 23,
        "energy_sum": 100,
    }


def test_times_from_now() -> None:
    """Small times count from when the message was received (4.5.3)."""
    pack = [{"n": "t", "v": 1, "t": -60}, {"n": "t", "v": 2}]
    assert decode(pack)["telemetry"] == [
        {"t": 2},
        {"ts": NOW_MS - 60_000, "values": {"t": 1}},
    ]


def test_cbor() -> None:
    """The same pack in CBOR, with its numbers for names (the RFC's section 6)."""
    pack = bytes.fromhex(
        "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223"
        "614120050067766f6c7461676501615602fb405e066666666666a3006763757272656e74062402fb3ff333"
        "3333333333a3006763757272656e74062302fb3ff4cccccccccccda3006763757272656e74062202fb3ff6"
        "666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999a"
        "a3006763757272656e74060002fb3ffb333333333333"
    )
    telemetry = decode(pack)["telemetry"]
    assert telemetry[0] == {"ts": 1276020071001, "values": {"current": 1.2}}
    assert telemetry[-1] == {"ts": 1276020076001, "values": {"voltage": 120.1, "current": 1.7}}


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (b"", "no CBOR"),
        (b"[", "no SenML"),
        ([], "list of records"),
        ([5], "record 0 is no object"),
        ([{"n": "t"}], "no record with a value"),
        ([{"n": "t", "v": "x"}], "`v` must be a number"),
        ([{"v": 1}], "has no name"),
        ([{"n": "t u", "v": 1}], "is none"),
        ([{"n": "t", "v": 1, "bver": 11}], "newer than known"),
        ([{"n": "t", "v": 1, "must_": 1}], "without knowing `must_`"),
        ([{"n": "t", "vb": 1}], "true or false"),
        ([{"n": "t", "v": 1, "t": 1e12}], "no time in seconds"),
        ([{"n": "t", "v": 1}] * 5001, "at most 5000"),
    ],
)
def test_refuses(pack: Any, message: str) -> None:
    """What is no SenML, or must not be read without knowing more, is refused with the record."""
    with pytest.raises(MessageError, match=message):
        decode(pack)


def test_encodes() -> None:
    """Fields become records, in JSON or CBOR; what is no value of SenML is refused."""
    fields = {"target": 21.5, "mode": "heat", "on": True}
    made = SenMl(f_port=7).build().encode(fields, None)
    assert made.f_port == 7
    assert orjson.loads(made.payload) == [
        {"n": "target", "v": 21.5},
        {"n": "mode", "vs": "heat"},
        {"n": "on", "vb": True},
    ]
    assert decode(SenMl(form="cbor").build().encode(fields, 1).payload)["telemetry"] == fields
    for bad in ({"a": [1]}, {"a b": 1}, {}):
        with pytest.raises(MessageError):
            SenMl().build().encode(bad, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(JSON)
def test_cbor_is_read_as_it_was_written(value: Any) -> None:
    """What was written as CBOR is read as the same value."""
    assert read_cbor(write_cbor(value)) == value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("9f0102ff", [1, 2]),
        ("bf616101ff", {"a": 1}),
        ("7f61616162ff", "ab"),
        ("5f4101ff", b"\x01"),
        ("c11a514b67b0", 1363896240),
        ("f97bff", 65504.0),
        ("1bffffffffffffffff", 2**64 - 1),
    ],
)
def test_cbor_of_others(data: str, value: Any) -> None:
    """Endless lists, maps and strings, tags and half floats are read (RFC 8949, appendix A)."""
    assert read_cbor(bytes.fromhex(data)) == value


@given(st.binary(max_size=40))
def test_any_bytes(payload: bytes) -> None:
    """Whatever comes is decoded or refused; nothing else is raised."""
    try:
        decode(payload)
    except MessageError as fault:
        refused = fault.code
    else:
        return
    assert refused == "codec"
