"""Framing: streams are cut where their sender cut them, however the network does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.rulebook.connections.framing import FrameReader, FramingConfig

KINDS: list[dict[str, Any]] = [
    {"length": 1},
    {"length": 2},
    {"length": 2, "order": "little"},
    {"length": 4, "includes_itself": True},
    {"length": 4, "order": "little", "includes_itself": True},
    {"delimiter": "\n"},
    {"delimiter": {"hex": "0d0a"}},
    {"delimiter": "END"},
    {"fixed": 5},
]
FRAMES_MAX = 1_000


def framing(**given_: Any) -> FramingConfig:
    return FramingConfig.model_validate(given_)


def messages(kind: dict[str, Any]) -> st.SearchStrategy[list[bytes]]:
    if "fixed" in kind:
        return st.lists(st.binary(min_size=kind["fixed"], max_size=kind["fixed"]))
    made = st.binary(min_size=1, max_size=200)
    end = framing(**kind).delimiter
    if end is not None:
        made = made.filter(lambda message: end not in message + end[:-1] and end not in message)
    return st.lists(made)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(data=st.data())
def test_frames_come_out_as_they_went_in(kind: dict[str, Any], data: st.DataObject) -> None:
    """However a stream is cut into chunks, be it into single bytes, its frames are those that were
    written.
    """
    config = framing(**kind)
    sent = data.draw(messages(kind))
    stream = b"".join(config.frame(message) for message in sent)
    places = st.integers(0, len(stream))
    cuts = sorted(data.draw(st.sets(places) | st.just(set(range(len(stream))))))
    reader = FrameReader(config, FRAMES_MAX)
    got: list[bytes] = []
    for begin, end in pairwise([0, *cuts, len(stream)]):
        if begin < end:
            got += reader.feed(stream[begin:end])

    assert got == sent
    assert not reader.fault
    assert not reader.within


@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        ({"length": 2}, b"\x00\x0bhello world"),
        ({"length": 2, "order": "little"}, b"\x0b\x00hello world"),
        ({"length": 2, "includes_itself": True}, b"\x00\x0dhello world"),
        ({"length": 1}, b"\x0bhello world"),
        ({"length": 4}, b"\x00\x00\x00\x0bhello world"),
        ({"delimiter": "\r\n"}, b"hello world\r\n"),
        ({"fixed": 11}, b"hello world"),
    ],
)
def test_the_bytes_on_the_wire(kind: dict[str, Any], stream: bytes) -> None:
    """A length stands before its message, a delimiter behind it."""
    config = framing(**kind)

    assert config.frame(b"hello world") == stream
    assert FrameReader(config, FRAMES_MAX).feed(stream) == [b"hello world"]


def test_an_empty_frame_is_a_sign_of_life() -> None:
    """Lines without a text and lengths of nothing are no messages."""
    assert FrameReader(framing(delimiter="\n"), 9).feed(b"\n\na\n\n") == [b"a"]
    assert FrameReader(framing(length=1), 9).feed(b"\x00\x01a\x00") == [b"a"]


@pytest.mark.parametrize(
    ("kind", "chunks", "frames"),
    [
        ({"length": 2}, [b"\x00\x01a\xff\xff"], [b"a"]),
        ({"length": 4}, [b"GET / HTTP/1.1\r\n"], []),
        ({"length": 2, "includes_itself": True}, [b"\x00\x03a\x00\x01"], [b"a"]),
        ({"delimiter": "\n"}, [b"a\n", b"x" * 6, b"x" * 6], [b"a"]),
        ({"delimiter": "\n"}, [b"a\n" + b"x" * 11 + b"\nb\n"], [b"a"]),
    ],
)
def test_what_is_too_long_ends_the_stream(
    kind: dict[str, Any], chunks: list[bytes], frames: list[bytes]
) -> None:
    """A frame past the limit is a fault, after which nothing can be read; those before it count,
    and its beginning is there to be looked at.
    """
    reader = FrameReader(framing(**kind), 10)
    got = [frame for chunk in chunks for frame in reader.feed(chunk)]

    assert got == frames
    assert reader.fault
    assert reader.rest


def test_a_frame_of_the_longest_length_is_none_too_long() -> None:
    """The limit counts the message, not its length or delimiter, even where that comes late."""
    reader = FrameReader(framing(delimiter="\r\n"), 10)

    assert reader.feed(b"x" * 10 + b"\r") == []
    assert not reader.fault
    assert reader.feed(b"\n") == [b"x" * 10]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"length": 1}, b"x" * 256),
        ({"length": 1, "includes_itself": True}, b"x" * 255),
        ({"delimiter": "\n"}, b"two\nlines"),
    ],
)
def test_what_cannot_be_framed_is_refused(kind: dict[str, Any], message: bytes) -> None:
    """A message that the other side would read as another one is never written."""
    with pytest.raises(MessageError) as refused:
        framing(**kind).frame(message)

    assert refused.value.code == "not_framable"


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"length": 3},
        {"length": 2, "fixed": 4},
        {"delimiter": ""},
        {"delimiter": {"hex": "0x"}},
        {"delimiter": {"hex": "00" * 300}},
        {"delimiter": 7},
        {"fixed": 0},
        {"fixed": 4, "order": "little"},
        {"length": 2, "order": "middle"},
    ],
)
def test_nonsense_is_refused(given_: dict[str, Any]) -> None:
    """What says no one framing is found when the rules are read."""
    with pytest.raises(ValidationError):
        framing(**given_)
