"""Messages of AMQP 1.0 and 0-9-1 as requests: nothing of them is trusted, nothing of them lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import proton
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MessageError
from pipeline.ingest.transports.amqp1_message import read
from pipeline.ingest.transports.amqp_message import HEADERS_MAX, header_texts, text_of


def encoded(body: Any, **more: Any) -> bytes:
    given = {"inferred": isinstance(body, bytes), **more}
    data: bytes = proton.Message(body=body, **given).encode()
    return data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_said_to_be_none(data: bytes) -> None:
    """No bytes raise anything but MessageError, and what is read can be stored."""
    try:
        made = read(data, "q")
    except MessageError:
        return
    assert orjson.loads(orjson.dumps([made.query, made.headers]))


@given(st.data())
def test_a_cut_message_is_never_taken_for_whole(data: st.DataObject) -> None:
    """A message cut anywhere is none, or has what came before the cut."""
    whole = encoded({"device": "d1", "n": [1, 2, "x"]}, subject="s", properties={"a": "b"})
    cut = data.draw(st.integers(1, len(whole) - 1))
    try:
        made = read(whole[:cut], "q")
    except MessageError:
        return
    assert made.body == b""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\x00\xff", b"\x00\xff"), ("é", "é".encode()), (None, b""), ([], b"[]"),
        ({"a": {"b": [1, 2.5, True, None]}}, b'{"a":{"b":[1,2.5,true,null]}}'),
        ({1: b"\xff"}, b'{"1":"ff"}'), (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (proton.ulong(2**63), b"9223372036854775808"),
    ],
)  # fmt: skip
def test_bodies(body: Any, expected: bytes) -> None:
    """Bytes and text stay as they are; all else is JSON."""
    assert read(encoded(body), "q").body == expected


def test_sections_of_data_are_one_body() -> None:
    """A body in several sections is put together, in order."""
    data = b"".join(b"\x00\x53\x75\xa0" + bytes([len(part)]) + part for part in (b"ab", b"", b"c"))
    assert read(data, "q").body == b"abc"
    with pytest.raises(MessageError, match="several bodies"):
        read(data + encoded("text"), "q")


def test_what_a_service_says_of_a_message() -> None:
    """Annotations are headers; offset and number of the service are told apart."""
    message = proton.Message(body=b"{}", inferred=True, id=UUID(int=2), address="/to/me")
    message.annotations = {
        proton.symbol("x-opt-offset"): "500",
        proton.symbol("x-opt-sequence-number"): 7,
        proton.symbol("iothub-connection-device-id"): "d1",
        proton.symbol("Funicular-Source-Key"): "forged",
    }
    made = read(message.encode(), "hub/1", "1")
    assert (made.offset, made.number) == ("500", "7")
    assert made.query == {"address": "hub/1", "partition": "1", "to": "/to/me"}
    assert made.headers == {
        "x-opt-offset": "500",
        "x-opt-sequence-number": "7",
        "iothub-connection-device-id": "d1",
        "message-id": str(UUID(int=2)),
    }


def test_headers_are_limited() -> None:
    """Names are lower case and cut, secrets of others are left out, and so is what is too much."""
    many = {f"H{n}": n for n in range(1_000)}
    assert len(header_texts(many)) == HEADERS_MAX
    assert header_texts({"Authorization": "x", "": "y", "A" * 500: "z" * 5_000}) == {
        "a" * 100: "z" * 1_024
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"ab", "ab"), (b"\xff", "ff"), (True, "true"), (None, ""), (1.5, "1.5"), ("\ud800", "?"),
        ({"a": [1, {"b": None}]}, '{"a":[1,{"b":null}]}'),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
    ],
)  # fmt: skip
def test_any_value_is_text(value: Any, text: str) -> None:
    """Each type of the protocol has a text that can be stored."""
    assert text_of(value) == text


def test_a_deep_table_is_left_out() -> None:
    """A table nested without end is no reason to stop."""
    deep: Any = []
    for _ in range(2_000):
        deep = [deep]
    assert text_of(deep) == ""
