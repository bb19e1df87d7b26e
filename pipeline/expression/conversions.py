"""The functions that turn a value into one of another type: `int(x)`, `string(x)`, …

A value in, a value out, or `Failure`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from pipeline.expression.kinds import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    WHOLE,
    Budget,
    Failure,
    Kind,
    UInt,
    kind_name,
    kind_of,
    spend_size,
)
from pipeline.expression.times import (
    format_duration,
    format_timestamp,
    parse_duration,
    parse_timestamp,
    seconds_of,
    timestamp_of_seconds,
)

_WHOLE_TEXT = re.compile(r"[+-]?[0-9]{1,20}")
_DOUBLE_TEXT = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
_TRUE = frozenset({"1", "t", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "false", "FALSE", "False"})
_DOUBLE_TEXT_MAX = 400  # the longest exact double has fewer digits before its point


def wrong(name: str, *values: Any) -> Failure:
    """Return the failure of a function that does not take such values."""
    return Failure(f"{name}() does not take {', '.join(map(kind_name, values))}")


def to_int(value: Any) -> int:
    """`int(x)`."""
    kind = type(value)
    if kind is int:
        return value  # type: ignore[no-any-return]
    if kind is datetime:
        return seconds_of(value)
    if kind is float:
        # Google's bounds are exclusive: a double cannot hold the largest int.
        if -(2.0**63) < value < 2.0**63:
            return int(value)
        raise Failure("the double does not fit into an int")
    if kind is str:
        text = value.strip(" \t\n\r\f\v")
        number = int(text) if _WHOLE_TEXT.fullmatch(text) else None
        if number is None or not INT_MIN <= number <= INT_MAX:
            raise Failure(f"{value[:40]!r} is no int")
        return number
    if kind is UInt:
        if value <= INT_MAX:
            return int(value)
        raise Failure("the uint does not fit into an int")
    raise wrong("int", value)


def to_uint(value: Any) -> UInt:
    """`uint(x)`."""
    kind = type(value)
    if kind is UInt:
        return value  # type: ignore[no-any-return]
    if kind is int:
        if 0 <= value <= UINT_MAX:
            return UInt(value)
        raise Failure(f"{value} does not fit into a uint")
    if kind is float:
        if -1.0 < value < 2.0**64:
            return UInt(value)
        raise Failure("the double does not fit into a uint")
    if kind is str:
        text = value.strip(" \t\n\r\f\v")
        number = int(text) if _WHOLE_TEXT.fullmatch(text) else None
        if number is None or not 0 <= number <= UINT_MAX:
            raise Failure(f"{value[:40]!r} is no uint")
        return UInt(number)
    raise wrong("uint", value)


def to_double(value: Any) -> float:
    """`double(x)`."""
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind in WHOLE:
        return float(value)
    if kind is str:
        text = value.strip(" \t\n\r\f\v")
        if len(text) <= _DOUBLE_TEXT_MAX and _DOUBLE_TEXT.fullmatch(text):
            return float(text)
        raise Failure(f"{value[:40]!r} is no double")
    raise wrong("double", value)


def to_bool(value: Any) -> bool:
    """`bool(x)`."""
    if value is True or value is False:
        return value
    if type(value) is str:
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise Failure(f"{value[:40]!r} is no bool")
    raise wrong("bool", value)


def to_bytes(value: Any, budget: Budget) -> bytes:
    """`bytes(x)`."""
    if type(value) is bytes:
        return value
    if type(value) is str:
        try:
            made = value.encode()
        except UnicodeEncodeError:
            raise Failure("the text has half a Unicode character") from None
        spend_size(budget, len(made))
        return made
    raise wrong("bytes", value)


def to_string(value: Any, budget: Budget) -> str:
    """`string(x)`."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is float:
        return double_text(value)
    if kind in WHOLE:
        return str(int(value)) if INT_MIN <= value <= UINT_MAX else double_text(float(value))
    if kind is bool:
        return "true" if value else "false"
    if kind is bytes:
        spend_size(budget, len(value))
        try:
            return value.decode()  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            raise Failure("the bytes are not UTF-8") from None
    if kind is datetime:
        return format_timestamp(value)
    if kind is timedelta:
        return format_duration(value)
    raise wrong("string", value)


def double_text(value: float) -> str:
    """Return a double as JSON's own language writes it: 2 for 2.0, digits up to 1e21.

    ECMA-262, Number::toString. JSON does not tell 2 from 2.0, so their texts are equal too.
    """
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    digits, _, exponent = text.partition("e")
    if not exponent:
        return text
    power = int(exponent)
    if -7 < power < 0:
        sign = "-" if digits[0] == "-" else ""
        return f"{sign}0.{'0' * (-power - 1)}{digits.lstrip('-').replace('.', '')}"
    return f"{digits}e{power:+}"


def to_timestamp(value: Any) -> datetime:
    """`timestamp(x)`: of RFC 3339, or of seconds since 1970."""
    if type(value) is datetime:
        return value
    if type(value) is str:
        return parse_timestamp(value)
    if type(value) is int:
        return timestamp_of_seconds(value)
    raise wrong("timestamp", value)


def to_duration(value: Any) -> timedelta:
    """`duration(x)`."""
    if type(value) is timedelta:
        return value
    if type(value) is str:
        return parse_duration(value)
    raise wrong("duration", value)


def type_of(value: Any) -> Kind:
    """`type(x)`."""
    kind = kind_of(value)
    if kind is None:
        raise wrong("type", value)
    return kind
