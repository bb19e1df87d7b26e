"""Protocol Buffers without a script: schemas as text and compiled, both ways, and refusals."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from pipeline.convert.codecs.codec import FIELDS_MAX, Given
from pipeline.convert.codecs.proto_text import compile_text
from pipeline.convert.codecs.protobuf import Protobuf
from pipeline.errors import MessageError

METER = """\
syntax = "proto3";
package acme;
import "google/protobuf/timestamp.proto";
import "units.proto";
// A meter says this each hour.
message Reading {
  sint32 temperature = 1;
  repeated uint32 samples = 2 [packed = true];
  map<string, float> channels = 3;
  oneof place { string room = 4; Point point = 5; }
  optional bool open = 6;
  Mode mode = 7;
  google.protobuf.Timestamp at = 8;
  units.Volume volume = 9;
  bytes raw = 10;
  int64 total = 11;
  Reading before = 12;
  message Point { double x = 1; double y = 2; }
  enum Mode { OFF = 0; HEAT = 1; }
  reserved 20, 30 to 32;
}
message Command { uint32 target = 1 [json_name = "wanted"]; Reading.Mode mode = 2; }
"""
UNITS = 'syntax = "proto3"; package units; message Volume { float litres = 1; }'
OLD = """\
syntax = "proto2";
message Old {
  required int32 id = 1;
  optional string name = 2 [default = "none"];
  optional bool on = 3 [default = true];
  repeated Kind kinds = 4;
  enum Kind { option allow_alias = true; A = 1; B = 2; C = 2; }
}
"""
FULL = {
    "temperature": -5,
    "samples": [1, 300],
    "channels": {"a": 1.6},
    "point": {"x": 1.5, "y": 0.1},
    "open": False,
    "mode": "HEAT",
    "at": "2026-01-01T00:00:00Z",
    "volume": {"litres": 21.6},
    "raw": "AQI=",
    "total": 2**60,
    "before": {"temperature": 1, "mode": "OFF", "raw": "", "total": 0},
}


def codec(files: dict[str, bytes | str] | None = None, **config: Any) -> Any:
    given = {"meter.proto": METER, "units.proto": UNITS} if files is None else files
    raw = {
        name: b64encode(text.encode() if isinstance(text, str) else text).decode()
        for name, text in given.items()
    }
    written = {"schema": "meter.proto", "uplink": [{"message": "acme.Reading"}],
               "downlink": [{"f_port": 9, "message": "acme.Reading"}], **config}  # fmt: skip
    return Protobuf.model_validate({**written, "files": raw}).build()


def refused(call: Any, *given: Any) -> str:
    with pytest.raises(MessageError) as caught:
        call(*given)
    return caught.value.message


def test_both_ways() -> None:
    """Every kind of field comes back as it went: nested, repeated, maps, enums, times, bytes."""
    both = codec()
    sent = both.encode(FULL, None)
    assert sent.f_port == 9
    assert both.decode(Given(sent.payload, 1)) == {"data": FULL, "warnings": []}


def test_bytes_of_another_writer() -> None:
    """The bytes are Protocol Buffers' own: field 1 as zigzag 9, field 7 as 1."""
    found = codec().decode(Given(bytes.fromhex("0809 3801"), 1))
    assert found["data"] == {"temperature": -5, "mode": "HEAT", "raw": "", "total": 0}


def test_a_compiled_schema() -> None:
    """A FileDescriptorSet, as protoc writes it with its imports, gives the same."""
    made: FileDescriptorSet = compile_text(
        {"meter.proto": METER, "units.proto": UNITS}, "meter.proto"
    )
    compiled = codec({"meter.desc": made.SerializeToString()}, schema="meter.desc")
    sent = codec().encode(FULL, None)
    assert compiled.decode(Given(sent.payload, 1))["data"] == FULL


def test_the_older_syntax() -> None:
    """Of proto2, what is required must be there; of two names of a number the first is taken."""
    old = codec(
        {"old.proto": OLD}, schema="old.proto", uplink=[{"message": "Old"}],
        downlink=[{"message": "Old"}],
    )  # fmt: skip
    assert old.decode(Given(bytes.fromhex("0807 2002"), None))["data"] == {"id": 7, "kinds": ["B"]}
    assert "id is missing" in refused(old.decode, Given(b"", None))
    assert "id is missing" in refused(old.encode, {"name": "x"}, None)


def test_messages_by_port() -> None:
    """The port tells the message; the first that can be read is taken of several."""
    several = codec(
        uplink=[
            {"f_port": [1, 2], "message": "acme.Command"},
            {"message": "acme.Reading"},
        ],
        downlink=[{"f_port": 3, "message": "acme.Command"}, {"message": "acme.Reading"}],
    )
    assert several.decode(Given(b"\x08\x02", 2))["data"] == {"target": 2, "mode": "OFF"}
    assert several.decode(Given(b"\x08\x02", 3))["data"]["temperature"] == 1
    assert several.encode({"wanted": 5}, None).f_port == 3
    assert several.encode({"temperature": 5}, None).f_port is None


def test_what_is_not_known_is_warned_of() -> None:
    """A field that the schema lacks, of newer firmware say, is passed over and named."""
    found = codec().decode(Given(bytes.fromhex("0809 a00601"), 1))
    assert found["data"]["temperature"] == -5
    assert found["warnings"] == ["fields 100 are not in acme.Reading"]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x08", "the payload cannot be read: acme.Reading: "),
        (b"\x4a\x05\x0d\x00\x00\xc0\x7f", "nan, which JSON has no word for"),
        (b"\x12\xff\xff\x03" + b"\x01" * 65_535, f"more than {FIELDS_MAX} values"),
    ],
)
def test_payloads_that_are_refused(payload: bytes, words: str) -> None:
    """A payload that is cut off, has no number for a number, or would swell, says so."""
    assert words in refused(codec().decode, Given(payload, 1))


def test_fields_that_are_refused() -> None:
    """Fields that the message lacks or cannot hold are named; so is a port without a message."""
    both = codec()
    assert "no field named" in refused(both.encode, {"nothing": 1}, 9)
    assert "temperature" in refused(both.encode, {"temperature": "warm"}, 9)
    assert refused(both.encode, {}, 8) == "no message of the schema goes on port 8"
    only = codec(uplink=[{"f_port": 2, "message": "acme.Reading"}])
    assert refused(only.decode, Given(b"", 3)) == "no message of the schema comes on port 3"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "x.proto"}, "there is no schema `x.proto` beside it; there are meter.proto"),
        ({"uplink": [{"message": "acme.Nothing"}]}, "the schema has no message `acme.Nothing`"),
        (
            {"files": {"meter.proto": METER}},
            "there is no file units.proto (meter.proto imports it)",
        ),
        (
            {"files": {"meter.proto": 'syntax = "proto3";\nmessage A { int32 x = ; }'}},
            "meter.proto:2:23: ",
        ),
        (
            {"files": {"meter.proto": 'syntax = "proto3"; message A { Nowhere x = 1; }'}},
            "`meter.proto` does not hold together: ",
        ),
        (
            {"files": {"meter.proto": 'import "b.proto";', "b.proto": 'import "meter.proto";'}},
            "b.proto imports meter.proto, which imports it",
        ),
        ({"files": {"meter.proto": 'edition = "2023";'}}, "meter.proto: it is of 2023; there are"),
        ({"files": {"meter.proto": b"\xff\xfe"}}, "meter.proto is not UTF-8"),
        ({"schema": "m.desc", "files": {"m.desc": b"\x08"}}, "`m.desc` is no FileDescriptorSet"),
    ],
)
def test_schemas_that_are_refused(change: dict[str, Any], words: str) -> None:
    """A schema that is missing, broken or does not hold together says file, line and column."""
    files = change.pop("files", None)
    with pytest.raises(MessageError) as caught:
        codec(files, **change)
    assert caught.value.message.startswith(words)


@given(st.binary(max_size=64))
def test_any_bytes_give_json_or_a_reason(payload: bytes) -> None:
    """No payload makes the codec fail in any other way."""
    try:
        found = BOTH.decode(Given(payload, 1))
    except MessageError:
        return
    assert isinstance(found["data"], dict)


BOTH = codec()
