"""What the client of AMQP 0-9-1 makes of frames that its library cannot read, and of errors."""

from __future__ import annotations

import struct

import pamqp.frame
import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from pipeline.clients.amqp import (
    FAULT_HEADER,
    BrokerError,
    UnreadableError,
    broker_error,
    closed_by,
    mended,
)


def framed(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 7, len(payload)) + payload + b"\xce"


def read(frame: bytes) -> object:
    consumed, channel, value = pamqp.frame.unmarshal(frame)
    assert (consumed, channel) == (len(frame), 7)
    return value


def test_what_can_be_read_stays_as_it_is() -> None:
    """A good frame is given on byte by byte."""
    header = ContentHeader(body_size=3, properties=Basic.Properties(headers={"a": 1}))
    frame = pamqp.frame.marshal(header, 7)
    assert mended(frame) == frame


@given(st.binary(max_size=60), st.integers(0, 2**16 - 1))
def test_any_header_becomes_one_that_can_be_read(properties: bytes, flags: int) -> None:
    """Whatever the properties are, the body's size is kept and the message can be read."""
    frame = framed(2, struct.pack(">HHQH", 60, 0, 4_711, flags) + properties)
    header = read(mended(frame))
    assert isinstance(header, ContentHeader)
    assert header.body_size == 4_711


def test_a_mended_header_says_so() -> None:
    """Properties that cannot be read are replaced by one that tells of it."""
    frame = framed(2, struct.pack(">HHQH", 60, 0, 1, 1 << 6) + b"\xff" * 8)
    header = read(mended(frame))
    assert isinstance(header, ContentHeader)
    assert list(header.properties.headers or {}) == [FAULT_HEADER]


@given(st.binary(max_size=255), st.binary(max_size=255))
def test_any_routing_key_becomes_text(exchange: bytes, key: bytes) -> None:
    """Names that are no UTF-8 are escaped, and the rest of the delivery is kept."""
    fixed = struct.pack(">HH", 60, 60) + b"\x03tag" + struct.pack(">QB", 99, 1)
    names = bytes([len(exchange)]) + exchange + bytes([len(key)]) + key
    delivery = read(mended(framed(1, fixed + names)))
    assert isinstance(delivery, Basic.Deliver)
    assert (delivery.consumer_tag, delivery.delivery_tag, delivery.redelivered) == ("tag", 99, True)
    try:
        assert delivery.routing_key == key.decode()
    except UnicodeDecodeError:
        assert delivery.routing_key


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OverflowError("date value out of range"), UnreadableError),
        (InvalidFrameError("x"), UnreadableError),
        (AMQPConnectionError("gone"), BrokerError),
        (ConnectionResetError("reset"), BrokerError),
        (None, BrokerError),
    ],
)
def test_why_a_connection_ended(error: BaseException | None, kind: type[BrokerError]) -> None:
    """What the library could not read is told from what the network did."""
    assert type(closed_by(error)) is kind


def test_bugs_and_secrets() -> None:
    """An error of ours is none of the broker's; a text with an address in it is not shown."""
    assert broker_error(KeyError("ours")) is None
    found = broker_error(AMQPConnectionError("amqp://me:geheim77@host"))
    assert found is not None
    assert "geheim77" not in found.message
