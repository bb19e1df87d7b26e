from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline.errors import ExpressionError

Evaluate = Callable[..., Any]
Failing = Callable[..., ExpressionError]

NOON = datetime(2024, 2, 29, 12, 30, 45, 678_901, UTC)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-02-29T12:30:45.678901Z", NOON),
        ("2024-02-29t14:30:45.6789019+02:00", NOON),
        ("2024-02-29T07:00:45.678901-05:30", NOON),
        ("2023-12-31T23:59:60Z", datetime(2024, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_timestamps_are_read(text: str, value: datetime, evaluate: Evaluate) -> None:
    """RFC 3339 with any offset becomes the moment in UTC, cut to microseconds."""
    assert evaluate("timestamp(a)", a=text) == value
    assert evaluate(f"timestamp('{text}')") == value
    assert evaluate("timestamp(a)", a=text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-02-29",
        "2024-02-29T12:30:45",
        "2024-02-30T12:30:45Z",
        "2024-02-29 12:30:45Z",
        "2024-02-29T12:30:61Z",
        "2024-02-29T24:30:00Z",
        "2024-02-29T12:30:45+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2024-02-29T12:30:45.0123456789Z",
        "٢٠٢٤-02-29T12:30:45Z",
        "2" * 10_000,
    ],
)
def test_what_is_no_timestamp_fails(text: str, failure: Failing) -> None:
    """Dates without a time or an offset, and moments that are not, are errors."""
    assert "no timestamp" in failure("timestamp(a)", a=text).message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1h30m", timedelta(minutes=90)),
        ("-2.5s", timedelta(seconds=-2.5)),
        ("+1m0.5s", timedelta(seconds=60.5)),
        (".5s", timedelta(milliseconds=500)),
        ("1.s", timedelta(seconds=1)),
        ("1h34us", timedelta(hours=1, microseconds=34)),
        ("3ms7µs", timedelta(microseconds=3007)),
        ("1999ns", timedelta(microseconds=1)),
        ("0", timedelta(0)),
        ("2562047h", timedelta(hours=2562047)),
    ],
)
def test_durations_are_read(text: str, value: timedelta, evaluate: Evaluate) -> None:
    """Units from hours to nanoseconds add up under one sign, cut to microseconds."""
    assert evaluate("duration(a)", a=text) == value


@pytest.mark.parametrize(
    "text", ["", "1", "1d", "1 s", "1h-1m", "s", ".s", "inf", "2562048h", "1e3s"]
)
def test_what_is_no_duration_fails(text: str, failure: Failing) -> None:
    """Unknown units, missing units and more than 64 bits of nanoseconds are errors."""
    assert "duration" in failure("duration(a)", a=text).message


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("t + d", NOON + timedelta(seconds=90)),
        ("d + t", NOON + timedelta(seconds=90)),
        ("t - d", NOON - timedelta(seconds=90)),
        ("t - timestamp(0)", NOON - datetime(1970, 1, 1, tzinfo=UTC)),
        ("d + d - duration('1m')", timedelta(minutes=2)),
        ("t > timestamp('2024-01-01T00:00:00Z')", True),
        ("d <= duration('90s') && d != duration('1s')", True),
        ("t == timestamp(string(t))", True),
        ("int(t)", 1709209845),
        ("int(timestamp('1969-12-31T23:59:59.5Z'))", -1),
        ("timestamp(1709209845)", NOON.replace(microsecond=0)),
        ("string(t)", "2024-02-29T12:30:45.678901Z"),
        ("string(timestamp(0))", "1970-01-01T00:00:00Z"),
        ("string(duration('1h1ms'))", "3600.001s"),
        ("string(duration('-1.5s'))", "-1.5s"),
        ("string(duration('0'))", "0s"),
        ("type(t) == google.protobuf.Timestamp", True),
        ("type(d) == google.protobuf.Duration", True),
        ("timestamp(t) == t && duration(d) == d", True),
    ],
)
def test_times_compute(source: str, value: Any, evaluate: Evaluate) -> None:
    """Timestamps and durations add, subtract, compare and convert as the definition says."""
    assert evaluate(source, t=NOON, d=timedelta(seconds=90)) == value


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("timestamp('9999-12-31T23:59:59Z') + d", "years 1 to 9999"),
        ("timestamp('0001-01-01T00:00:00Z') - d", "years 1 to 9999"),
        ("timestamp('9999-12-31T00:00:00Z') - timestamp(0)", "292 years"),
        ("duration('2562047h') + duration('1h')", "292 years"),
        ("timestamp(253402300800)", "years 1 to 9999"),
        ("timestamp('9999-12-31T23:59:59Z').getHours('+01:00')", "years 1 to 9999"),
        ("d - t", "duration - timestamp"),
        ("t + t", "timestamp + timestamp"),
        ("t + 1", "timestamp + int"),
        ("t < d", "timestamp < duration"),
        ("naive.getHours()", "no time zone"),
        ("naive + d", "no time zone"),
        ("t.getHours(z)", "no time zone 'Mars'"),
        ("t.getHours(1 == 1 ? x : z)", "a time zone is a string"),
        ("d.getHours(z)", "duration has no getHours"),
        ("d.getFullYear()", "duration has no getFullYear"),
    ],
)
def test_times_that_cannot_be_fail(source: str, words: str, failure: Failing) -> None:
    """Past the ends of time, between wrong types, and without a zone there is an error."""
    scope = {"t": NOON, "d": timedelta(seconds=90), "z": "Mars", "x": 1}
    assert words in failure(source, **scope, naive=datetime(2024, 1, 1)).message  # noqa: DTZ001 - it is the case


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("getFullYear()", 2024),
        ("getMonth()", 1),
        ("getDate()", 29),
        ("getDayOfMonth()", 28),
        ("getDayOfWeek()", 4),
        ("getDayOfYear()", 59),
        ("getHours()", 12),
        ("getMinutes()", 30),
        ("getSeconds()", 45),
        ("getMilliseconds()", 678),
        ("getHours('+05:30')", 18),
        ("getMinutes('-00:45')", 45),
        ("getHours('02:00')", 14),
        ("getHours('Europe/Paris')", 13),
        ("getDate('Pacific/Auckland')", 1),
        ("getHours('UTC')", 12),
    ],
)
def test_a_timestamp_has_parts_in_any_zone(part: str, value: int, evaluate: Evaluate) -> None:
    """Each accessor counts from where CEL counts; a zone is a name or an offset."""
    assert evaluate(f"t.{part}", t=NOON) == value
    assert evaluate(f"t.{part}", t=NOON.astimezone(timezone(timedelta(hours=-7)))) == value


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("getHours()", -1),
        ("getMinutes()", -61),
        ("getSeconds()", -3661),
        ("getMilliseconds()", -500),
    ],
)
def test_a_duration_has_parts_cut_towards_zero(part: str, value: int, evaluate: Evaluate) -> None:
    """Hours, minutes and seconds are the whole duration; milliseconds what is left of a second."""
    assert evaluate(f"d.{part}", d=timedelta(seconds=-3661.5)) == value


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "/etc/passwd", "a\x00b", "x" * 5000, "25:00", "01:60"]
)
def test_a_zone_is_a_name_and_no_path(zone: str, failure: Failing) -> None:
    """A zone's name cannot reach a file outside of the zone data."""
    assert "no time zone" in failure("t.getHours(z)", t=NOON, z=zone).message
