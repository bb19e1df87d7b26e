"""Reading JSON that others sent."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.document import (
    DEPTH_MAX,
    Uint8,
    convert,
    digest,
    milliseconds,
    parse,
    parse_object,
    rfc3339,
    time_of,
)


class Shape(msgspec.Struct):
    number: Uint8 | None = None
    ratio: float | None = None
    flag: bool | None = None
    raw: bytes | None = None
    inner: dict[str, int] | None = None


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "not_json", "empty"),
        (b"{", "not_json", "line 1 column 2"),
        (b"hello", "not_json", "line 1 column 1"),
        (b'{"a": 1,}', "not_json", "trailing comma"),
        (b'{"a":1} {"b":2}', "not_json", "unexpected content"),
        (b'{"a":NaN}', "not_json", "line 1 column 6"),
        (b'{"a":-Infinity}', "not_json", "not JSON"),
        (b'{"a":1e999}', "not_json", "infinity"),
        (b'{"a":"\xff"}', "not_json", "UTF-8"),
        (b'{"a":"\\ud800"}', "not_json", "surrogate"),
        (b"[" * 100_000, "too_deep", "64 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep", "64 levels"),
        (b"[" * 500 + b"]" * 500, "too_deep", "64 levels"),
    ],
)
def test_refuses_what_is_not_json(body: bytes, code: str, words: str) -> None:
    """What is not JSON, or is nested too deep, is refused with where and why."""
    with pytest.raises(MessageError, match=words) as caught:
        parse(body)

    assert caught.value.code == code


def test_depth_limit_is_exact() -> None:
    """As many levels as the limit pass, one more does not; many brackets side by side do."""
    parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    parse(b"[" + b",".join([b"{}"] * 1000) + b"]")

    with pytest.raises(MessageError, match="levels deep"):
        parse(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))


def test_numbers_past_64_bits_become_doubles() -> None:
    """A whole number that no 64-bit reader could take is a double, as in JavaScript."""
    assert parse(b'{"a":123456789012345678901234567890}') == {"a": 1.2345678901234568e29}


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"[]", "an array"), (b"null", "null"), (b"5", "a number"), (b'"x"', "text"),
     (b"true", "true or false")],
)  # fmt: skip
def test_object_is_required(body: bytes, words: str) -> None:
    """Where an object is due, the error says what stood there."""
    with pytest.raises(MessageError, match=f"must be a JSON object, not {words}"):
        parse_object(body)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"number": "5"}, "number", "`number` must be a whole number, not text"),
        ({"number": 256}, "number", "`number` must be a whole number <= 255"),
        ({"number": -1}, "number", "`number` must be a whole number >= 0"),
        ({"ratio": "x"}, "ratio", "`ratio` must be a number, not text"),
        ({"flag": 1}, "flag", "`flag` must be true or false, not a whole number"),
        ({"raw": "AQI"}, "raw", "`raw` is not base64"),
        ({"raw": "A-_="}, "raw", "`raw` is not base64"),
        ({"raw": 5}, "raw", "`raw` must be base64 text, not a whole number"),
        ({"inner": [1]}, "inner", "`inner` must be a JSON object, not a JSON array"),
        ({"inner": {"a": "b"}}, "inner[...]", "must be a whole number, not text"),
    ],
)
def test_wrong_fields_are_named(value: object, field: str, words: str) -> None:
    """A field of the wrong type or range is named, in words, without the library's jargon."""
    with pytest.raises(MessageError) as caught:
        convert(value, Shape)

    assert words in caught.value.message
    assert caught.value.code == "field"
    assert caught.value.detail["field"] == field


def test_lax_reads_quoted_values() -> None:
    """Where a template may quote them, numbers and booleans are read from text."""
    shape = convert({"number": "5", "ratio": "1.5", "flag": "true"}, Shape, lax=True)

    assert (shape.number, shape.ratio, shape.flag) == (5, 1.5, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-02-12T15:15:46.014773143Z", 1_581_520_546_014),
        ("2020-02-12T16:15:46+01:00", 1_581_520_546_000),
        ("2020-02-12T15:15:46", 1_581_520_546_000),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_times(text: str | None, expected: int | None) -> None:
    """RFC 3339 becomes milliseconds; a clock that was never set is no time."""
    assert time_of(text, "time") == expected


@pytest.mark.parametrize("value", ["yesterday", 5, {"a": 1}, "2020-13-01T00:00:00Z"])
def test_bad_times_are_named(value: object) -> None:
    """What is no time is refused by the field's name."""
    with pytest.raises(MessageError, match=r"`metadata\.time` must be a time"):
        time_of(value, "metadata.time")


def test_rfc3339_is_the_way_back() -> None:
    """Milliseconds written as RFC 3339 read back as the same."""
    assert rfc3339(1_581_520_546_014) == "2020-02-12T15:15:46.014Z"
    assert time_of(rfc3339(1_581_520_546_014), "time") == 1_581_520_546_014
    assert rfc3339(10**18) == "1970-01-01T00:00:00.000Z"
    assert milliseconds(None) is None


def test_digest_tells_text_and_bytes_apart() -> None:
    """What stands in the text cannot pass for bytes of the payload."""
    assert digest("a", b"b") != digest("ab")
    assert digest("a", b"b") != digest("a\0b")
    assert digest("a", b"b") == digest("a", b"b")
