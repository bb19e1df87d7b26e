"""Cron expressions against known times, and against minute-by-minute search."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pipeline.route.cron import parse_cron


def times(text: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    """The next times, in UTC."""
    cron, place = parse_cron(text), ZoneInfo(zone)
    at_ms = round(datetime.fromisoformat(start).timestamp() * 1_000)
    found = []
    for _ in range(count):
        after = cron.next_after(at_ms, place)
        assert after is not None
        at_ms = after
        found.append(datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/20 * * * *", ["11-21 08:20", "11-21 08:40", "11-21 09:00"]),
        ("5,50 8-9 * * *", ["11-21 08:05", "11-21 08:50", "11-21 09:05"]),
        ("0 6 * * mon-fri", ["11-24 06:00", "11-25 06:00", "11-26 06:00"]),
        ("0 6 * * SUN", ["11-23 06:00", "11-30 06:00", "12-07 06:00"]),
        ("0 6 * * 7", ["11-23 06:00", "11-30 06:00", "12-07 06:00"]),
        ("0 0 13 * fri", ["11-28 00:00", "12-05 00:00", "12-12 00:00"]),
        ("0 0 */15 * *", ["12-01 00:00", "12-16 00:00", "12-31 00:00"]),
        ("0 0 31 * *", ["12-31 00:00", "01-31 00:00", "03-31 00:00"]),
        ("0 12 1 jan,jul *", ["01-01 12:00", "07-01 12:00", "01-01 12:00"]),
        ("7/30 * * * *", ["11-21 08:07", "11-21 08:37", "11-21 09:07"]),
        ("@daily", ["11-22 00:00", "11-23 00:00", "11-24 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
    ],
)
def test_next_times(text: str, expected: list[str]) -> None:
    """The times after Friday, 21 November 2025, 08:00."""
    assert times(text, "2025-11-21T08:00:00Z", 3) == expected


def test_local_time_that_is_left_out() -> None:
    """02:30 does not exist when the clocks go forward; it comes as much later, once."""
    assert times("30 2 * * *", "2026-03-28T00:00:00Z", 3, "Europe/Amsterdam") == [
        "03-28 01:30",
        "03-29 01:30",
        "03-30 00:30",
    ]


def test_local_time_that_comes_twice() -> None:
    """02:30 comes twice when the clocks go back; it counts once."""
    assert times("30 2 * * *", "2026-10-24T12:00:00Z", 2, "Europe/Amsterdam") == [
        "10-25 00:30",
        "10-26 01:30",
    ]


@pytest.mark.parametrize("text", ["*/7 3-5,22 * * *", "15 */5 1-10 * wed", "59 23 * 2 *"])
def test_equals_a_search_minute_by_minute(text: str) -> None:
    """Each time of some days is found, none is skipped."""
    cron = parse_cron(text)
    moment = datetime(2026, 1, 30, tzinfo=UTC)
    expected = []
    for _ in range(14 * 1_440):
        moment += timedelta(minutes=1)
        of_month, of_week = moment.day in cron.days, moment.isoweekday() % 7 in cron.weekdays
        right_day = of_month or of_week if cron.either_day else of_month and of_week
        if (
            moment.minute in cron.minutes
            and moment.hour in cron.hours
            and moment.month in cron.months
            and right_day
        ):
            expected.append(moment.strftime("%m-%d %H:%M"))

    assert times(text, "2026-01-30T00:00:00Z", len(expected)) == expected
    assert expected


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
        "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "1- * * * *", "-1 * * * *",
        "1,,2 * * * *", "* * * foo *", "0 0 31 2 *", "@never", "\u0663 * * * *",
    ],
)  # fmt: skip
def test_no_cron_expression(text: str) -> None:
    """What cannot be read, or never comes, says so."""
    with pytest.raises(ValueError, match="cron"):
        parse_cron(text)
