"""Timestamps and durations: text in, datetime and timedelta out, and the other way.

Python counts microseconds where CEL counts nanoseconds; finer digits are cut off.
Formats: RFC 3339, and `1h30m2.5s` as in CEL's standard definitions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.expression.kinds import Failure, kind_name

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# CEL's durations are 64 bits of nanoseconds.
DURATION_MAX_NS = 2**63 - 1
DURATION_MAX = timedelta(microseconds=DURATION_MAX_NS // 1000)
TIMESTAMP_MIN_S, TIMESTAMP_MAX_S = -62_135_596_800, 253_402_300_799  # years 1 to 9999
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)

_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_DURATION = re.compile(r"([+-]?)((?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|m|s|ms|us|µs|ns))+|0)")
_DURATION_PART = re.compile(r"([0-9]*)\.?([0-9]*)(h|ms|m|s|us|µs|ns)")
_UNITS_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "ns": 1,
}
_OFFSET = re.compile(r"([+-]?)([0-9]{1,2}):([0-9]{2})")
TEXT_LENGTH_MAX = 100  # longer than any time anybody writes; keeps parsing cheap


def parse_timestamp(text: str) -> datetime:
    """Return the UTC time of an RFC 3339 text, or raise `Failure`."""
    found = _TIMESTAMP.fullmatch(text) if len(text) <= TEXT_LENGTH_MAX else None
    if found is None:
        raise Failure(f"{text[:TEXT_LENGTH_MAX]!r} is no timestamp such as 2024-05-31T12:00:00Z")
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    micros = int((fraction or "0").ljust(6, "0")[:6])
    if int(second) > 60 or int(minutes or 0) > 59 or int(hours or 0) > 23:
        raise Failure(f"{text!r} is no timestamp: a field is out of range")
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), 0, micros, UTC)
        # A leap second (:60) is the first second of the next minute.
        return moment + timedelta(seconds=int(second)) + (offset if sign == "-" else -offset)
    except (ValueError, OverflowError) as error:
        raise Failure(f"{text!r} is no timestamp: {error}") from None


def parse_duration(text: str) -> timedelta:
    """Return the duration of a text such as `1h30m`, `-2.5s`, `0`, or raise `Failure`."""
    found = _DURATION.fullmatch(text) if len(text) <= TEXT_LENGTH_MAX else None
    if found is None:
        raise Failure(f"{text[:TEXT_LENGTH_MAX]!r} is no duration such as 1h30m or 2.5s")
    nanos = 0
    for whole, fraction, unit in _DURATION_PART.findall(found[2]):
        scale = _UNITS_NS[unit]
        nanos += int(whole or 0) * scale + int(fraction or 0) * scale // 10 ** len(fraction)
    if nanos > DURATION_MAX_NS:
        raise Failure(f"the duration {text} is longer than 292 years")
    duration = timedelta(microseconds=nanos // 1000)
    return -duration if found[1] == "-" else duration


def checked_duration(value: timedelta) -> timedelta:
    """Return a computed duration, or fail for its length."""
    if -DURATION_MAX <= value <= DURATION_MAX:
        return value
    raise Failure("the duration is longer than 292 years")


def checked_timestamp(moment: datetime, by: timedelta) -> datetime:
    """Return `moment + by`, or fail outside of the years 1 to 9999."""
    try:
        return _aware(moment) + by
    except OverflowError:
        raise Failure("the timestamp is outside of the years 1 to 9999") from None


def timestamp_of_seconds(seconds: int) -> datetime:
    """Return the time that is so many seconds after 1970 began."""
    if not TIMESTAMP_MIN_S <= seconds <= TIMESTAMP_MAX_S:
        raise Failure("the timestamp is outside of the years 1 to 9999")
    return EPOCH + timedelta(seconds=seconds)


def seconds_of(moment: datetime) -> int:
    """Return whole seconds since 1970 began, rounded down."""
    return (_aware(moment) - EPOCH) // _SECOND


def format_timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC, with as many digits of a second as it has."""
    text = _aware(moment).astimezone(UTC).isoformat()[:-6]
    return f"{text.rstrip('0') if '.' in text else text}Z"


def format_duration(duration: timedelta) -> str:
    """Return seconds: `3.5s`, with as many digits as it has."""
    micros = duration // _MICROSECOND
    whole, fraction = divmod(abs(micros), 1_000_000)
    digits = f".{fraction:06}".rstrip("0") if fraction else ""
    return f"{'-' if micros < 0 else ''}{whole}{digits}s"


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise Failure("the timestamp has no time zone")
    return moment


# The parts of a time. CEL counts months, days of the month (getDayOfMonth) and of the year from 0.
_OF_TIMESTAMP: dict[str, Callable[[datetime], int]] = {
    "getDate": lambda at: at.day,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getFullYear": lambda at: at.year,
    "getHours": lambda at: at.hour,
    "getMilliseconds": lambda at: at.microsecond // 1000,
    "getMinutes": lambda at: at.minute,
    "getMonth": lambda at: at.month - 1,
    "getSeconds": lambda at: at.second,
}
# Hours, minutes and seconds are the whole duration in that unit; milliseconds are what is left
# over whole seconds.
_OF_DURATION_US = {
    "getHours": (3_600_000_000, None),
    "getMinutes": (60_000_000, None),
    "getSeconds": (1_000_000, None),
    "getMilliseconds": (1_000, 1_000),
}
PARTS = tuple(_OF_TIMESTAMP)
DURATION_PARTS = frozenset(_OF_DURATION_US)


def part(name: str, value: Any, zone: Any = None) -> int:
    """Return `value.name()` or `value.name(zone)`: one part of a timestamp or a duration."""
    if type(value) is datetime:
        try:
            return _OF_TIMESTAMP[name](_aware(value).astimezone(_zone(zone)))
        except OverflowError:
            raise Failure("the timestamp is outside of the years 1 to 9999") from None
    if type(value) is timedelta and zone is None and name in _OF_DURATION_US:
        unit, modulus = _OF_DURATION_US[name]
        count = abs(value // _MICROSECOND) // unit
        if modulus is not None:
            count %= modulus
        return -count if value < timedelta(0) else count
    raise Failure(f"{kind_name(value)} has no {name}()")


def _zone(name: Any) -> tzinfo:
    if name is None:
        return UTC
    if type(name) is not str:
        raise Failure(f"a time zone is a string such as Europe/Paris, not {kind_name(name)}")
    zone = find_zone(name)
    if zone is None:
        raise Failure(f"there is no time zone {name[:TEXT_LENGTH_MAX]!r}")
    return zone


@lru_cache(maxsize=256)
def find_zone(name: str) -> tzinfo | None:
    """Return a time zone by its name (`Europe/Paris`) or offset (`+01:30`); None: there is none.

    Reads the machine's time zone data on a name's first use; the answer is kept, also "none".
    """
    if name in ("", "UTC"):
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if ahead >= timedelta(days=1) or int(offset[3]) > 59:
            return None
        return timezone(-ahead if offset[1] == "-" else ahead)
    if len(name) > TEXT_LENGTH_MAX:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return None
