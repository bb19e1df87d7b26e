"""Bytes as people write them."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.rehearse.payload import hex_bytes, payload_of


@pytest.mark.parametrize("text", ["010aff", "01 0A FF", "01:0a:ff", "0x01, 0x0a 0xff", "0x010aff"])
def test_hexadecimal(text: str) -> None:
    """Spaces, colons, commas and 0x do not matter."""
    assert hex_bytes(text) == payload_of(text) == b"\x01\x0a\xff"


def test_base64_where_it_is_no_hexadecimal() -> None:
    """What both could be is hexadecimal."""
    assert payload_of("AQr/") == b"\x01\x0a\xff"
    assert payload_of("deadbeef") == b"\xde\xad\xbe\xef"
    assert payload_of("") == b""


@pytest.mark.parametrize("text", ["abc", "zz", "ü", "0x1 0x2"])
def test_neither(text: str) -> None:
    """The user is told how bytes are written."""
    with pytest.raises(ValueError, match="two digits each"):
        hex_bytes(text)
    with pytest.raises(UsageError, match="neither hexadecimal"):
        payload_of(text + "!")
