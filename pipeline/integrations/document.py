"""Reads documents that others sent: strict, bounded, with errors that say what is wrong and where.

In: bytes of a request. Out: JSON values, or MessageError with a code: `not_json`, `too_deep`,
`field` (`detail` has `field`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

import msgspec
import orjson

from pipeline.errors import MessageError

# Deep enough for every network server (The Things Stack's deepest is 9) with room for decoded
# payloads, and far below what any JSON reader down the line refuses.
DEPTH_MAX = 64
NAME_LENGTH_MAX = 255  # as DEVICE_NAME_LENGTH_MAX of the dialects
URL_LENGTH_MAX = 2048
EPOCH_MS_MAX = 253_402_300_799_999  # the last moment of the year 9999

Name = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX)]
Uint8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_PLACE = re.compile(r" - at `(?P<in_key>key in )?\$(?P<path>.*)`$")
_EXPECTED = re.compile(r"^Expected `(?P<expected>[^`]*)`(?:, got `(?P<got>[^`]*)`)?(?P<rest>.*)$")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a JSON object",
    "array": "a JSON array",
    "bytes": "base64 text",
    "null": "null",
    "datetime": "a time as in RFC 3339",
}

T = TypeVar("T")


def parse(body: bytes) -> Any:
    """Return the JSON value of a body.

    MessageError: `not_json` (with line and column; NaN, infinite numbers, lone surrogates and
    invalid UTF-8 are not JSON), `too_deep` (more than DEPTH_MAX levels).
    Integers past 64 bits become doubles, as in JavaScript.
    """
    if not body:
        raise MessageError("the body is empty; it must be JSON", code="not_json")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        reason = str(fault)
        if "depth limit" in reason or "ecursion limit" in reason:
            raise too_deep() from None
        raise MessageError(f"the body is not JSON: {reason}", code="not_json") from None
    check_depth(value, body)
    return value


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body, as `parse`; `not_json` also where it is no object."""
    value = parse(body)
    if type(value) is not dict:
        raise MessageError(
            f"the body must be a JSON object, not {_kind(value)}", code="not_json", field=""
        )
    return value


def check_depth(value: Any, text: bytes) -> None:
    """Raise MessageError (`too_deep`) where `value` has more than DEPTH_MAX levels.

    `text` is its JSON: where it has no more brackets than that, no walk is needed.
    """
    if len(text) <= 2 * DEPTH_MAX:
        return
    if text.count(b"{") + text.count(b"[") <= DEPTH_MAX:
        return
    level = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        if not below:
            return
        level = below
    if any(type(item) in (dict, list) for item in level):
        raise too_deep()


def convert(value: Any, to: type[T], *, lax: bool = False) -> T:
    """Return a parsed JSON value as the struct `to`; unknown keys are ignored.

    `lax`: numbers and booleans may be quoted. MessageError (`field`): a value has the wrong type
    or is out of range, or its base64 is bad; `detail["field"]` is where.
    """
    try:
        return msgspec.convert(value, to, strict=not lax)
    except msgspec.ValidationError as fault:
        raise _field_error(str(fault)) from None


def milliseconds(time: datetime | None) -> int | None:
    """Return epoch milliseconds; None where there is no time.

    Go's zero time (year 1) and 1970's first moment are clocks that were never set: None too.
    A time without a zone is UTC.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    since = time - _EPOCH
    value = since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
    return value if value > 0 else None


def milliseconds_of(value: float | None) -> int | None:
    """Return an epoch in milliseconds as a whole number; None where there is none, or it is past
    the year 9999, or of a clock that was never set.
    """
    return int(value) if value is not None and 0 < value <= EPOCH_MS_MAX else None


def rfc3339(time_ms: int) -> str:
    """Return epoch milliseconds as RFC 3339 in UTC, to the millisecond."""
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        moment = _EPOCH  # no clock of a log or a network server says so
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def time_of(value: Any, field: str) -> int | None:
    """Return epoch milliseconds of RFC 3339 text, as `milliseconds`; empty text is no time."""
    if value is None or value == "":
        return None
    try:
        return milliseconds(msgspec.convert(value, datetime))
    except msgspec.ValidationError:
        raise bad_field(field, "must be a time as in RFC 3339") from None


def bytes_of_hex(text: str, field: str) -> bytes:
    """Return what hexadecimal text says. MessageError `field`: it is none."""
    if not _HEX.fullmatch(text):
        raise bad_field(field, "must be bytes in hexadecimal")
    return bytes.fromhex(text)


def digest(text: str, payload: bytes = b"") -> str:
    """Return 24 hex digits (96 bits) that tell apart all that one device ever sends."""
    return blake2b(
        text.encode(errors="surrogatepass") + b"\0" + payload, digest_size=12
    ).hexdigest()


def bad_field(field: str, message: str) -> MessageError:
    """Return the error of one field; `message` goes on from the field's name."""
    return MessageError(f"`{field}` {message}", code="field", field=field)


def too_deep(what: str = "the body") -> MessageError:
    """Return the error of a JSON value with more than DEPTH_MAX levels."""
    return MessageError(
        f"{what} is nested more than {DEPTH_MAX} levels deep", code="too_deep", limit=DEPTH_MAX
    )


def _kind(value: Any) -> str:
    for types, word in _KINDS:
        if types(value):
            return word
    return "a number"


_KINDS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: value is None, "null"),
    (lambda value: isinstance(value, bool), "true or false"),
    (lambda value: isinstance(value, str), "text"),
    (lambda value: isinstance(value, list), "an array"),
    (lambda value: isinstance(value, dict), "an object"),
)


def _field_error(reason: str) -> MessageError:
    """Return msgspec's sentence in the words of whoever sent the document."""
    place = _PLACE.search(reason)
    field = place["path"].removeprefix(".") if place else ""
    what = reason[: place.start()] if place else reason
    expected = _EXPECTED.match(what)
    if expected:
        what = f"must be {_in_words(expected['expected'])}{expected['rest']}"
        if expected["got"]:
            what += f", not {_in_words(expected['got'])}"
    elif "base64" in what:
        what = "is not base64 (the standard alphabet, padded with =)"
    elif "RFC3339" in what:
        what = "must be a time as in RFC 3339"
    else:
        what = what[:1].lower() + what[1:]
    return bad_field(field, what) if field else MessageError(f"the body {what}", code="field")


def _in_words(types: str) -> str:
    names = [name for name in types.split(" | ") if name != "null"] or ["null"]
    return " or ".join(_WORDS.get(name, name) for name in names)
