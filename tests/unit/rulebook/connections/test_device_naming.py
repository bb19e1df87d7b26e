"""How bytes without an envelope name their device, and prove it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.errors import MessageError
from pipeline.rulebook.connections.device_naming import (
    DeviceNaming,
    FieldNaming,
    HeadNaming,
    Named,
    Tokens,
)


class Asked(BaseModel):
    """A model with the field."""

    device: DeviceNaming


def naming(given: Any) -> Any:
    return Asked.model_validate({"device": given}).device


@pytest.mark.parametrize(
    ("given", "message", "named"),
    [
        ({"offset": 1, "length": 2}, b"\x00\xab\xcd\x01", Named("abcd", "", b"\x00\xab\xcd\x01")),
        ({"length": 3, "as": "text"}, b"abcdef", Named("abc", "", b"abcdef")),
        ({"offset": 3, "length": 4}, b"abcdef", Named("", "", b"abcdef")),
        ({"length": 2, "as": "text"}, b"\xff\xfe", Named("", "", b"\xff\xfe")),
        ({"length": 2, "as": "text"}, b"\x00\x07", Named("", "", b"\x00\x07")),
    ],
)
def test_a_field_of_the_message(given: dict[str, Any], message: bytes, named: Named) -> None:
    """These bytes are the name, and stay in the message; what cannot be a name is none."""
    assert naming(given).read(message) == named


@pytest.mark.parametrize(
    ("message", "token", "named"),
    [
        (b"d1;t1;a;b", True, Named("d1", "t1", b"a;b")),
        (b"d1;a;b", False, Named("d1", "", b"a;b")),
        (b"d1", False, Named("", "", b"d1")),
        (b"d1;a", True, Named("", "", b"d1;a")),
        (b"\xff;t;a", True, Named("", "t", b"a")),
        (b";;a", True, Named("", "", b"a")),
    ],
)
def test_the_head_of_the_message(message: bytes, token: bool, named: Named) -> None:
    """The name and the token come first and are taken off; the rest may hold the sign again."""
    assert HeadNaming.model_validate({"head": ";"}).read(message, token=token) == named


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (b"d1 secret", Named("d1", "secret", b"")),
        (b"d1", Named("d1", "", b"")),
        (b"d1 secret\r", Named("d1", "secret", b"")),
        (b"", Named("", "", b"")),
        (b"\xff\xff x", Named("", "x", b"")),
        (b"x" * 300, Named("", "", b"")),
    ],
)
def test_the_first_frame(frame: bytes, named: Named) -> None:
    """A handshake is a name, with or without a token; a line's own ending does not matter."""
    assert naming({"handshake": " "}).read(frame) == named


def test_what_a_device_writes_reads_back() -> None:
    """A sample names its device as the device would."""
    field = naming({"offset": 2, "length": 2})
    head = naming({"head": "|"})

    assert field.write("abcd", "", b"\x01") == b"\x01\x00\xab\xcd"
    assert field.read(field.write("abcd", "", b"xyz")).name == "abcd"
    assert head.read(head.write("d", "t", b"m"), token=True) == Named("d", "t", b"m")
    assert naming({"handshake": ":"}).write("d", "t") == b"d:t"
    with pytest.raises(MessageError, match="is not 2 bytes as hex"):
        field.write("room-1", "", b"")


def test_tokens() -> None:
    """A device with a token of its own shows that one, others everybody's; none is no proof."""
    nobody = Tokens()
    everybody = Tokens.model_validate({"token": "t"})
    both = Tokens.model_validate({"token": "t", "tokens": {"d1": "own"}})
    listed = Tokens.model_validate({"tokens": {"d1": "own"}})

    assert nobody.proven("d", "")
    assert everybody.proven("d", "t")
    assert not everybody.proven("d", "")
    assert not everybody.proven("d", "T")
    assert both.proven("d1", "own")
    assert not both.proven("d1", "t")
    assert both.proven("d2", "t")
    assert not listed.proven("d2", "")
    assert not listed.proven("d2", "own")
    assert "own" not in repr(both)


def test_peer() -> None:
    """The address may be the name."""
    assert naming("peer") == "peer"


@pytest.mark.parametrize(
    "given", [{}, "handshake", {"length": 0}, {"length": 2, "as": "int"}, {"head": ""}, 5]
)
def test_nonsense_is_refused(given: Any) -> None:
    """What names no device is found when the rules are read, in words."""
    with pytest.raises(ValidationError):
        naming(given)


def test_a_field_is_told_by_its_length() -> None:
    """The four kinds are told apart by what they have."""
    assert isinstance(naming({"length": 2}), FieldNaming)
    assert isinstance(naming({"head": " "}), HeadNaming)
