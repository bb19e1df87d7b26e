"""Cron expressions: the text that users write in, the next time that it means out.

Five fields: minute, hour, day of the month, month, day of the week, with `*`, lists, ranges, steps
and names, as in crontab(5). Where both days are restricted, either will do. Local times that a
change of clocks leaves out come when the clocks have moved; those that come twice count once.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_LENGTH_MAX = 200
_MOVED_HOURS_MAX = 2  # clocks are moved by one hour, and by two in Antarctica
_SEARCH_DAYS_MAX = 8 * 366 + 1  # 29 February is missing for eight years around 2100


class Cron(NamedTuple):
    """A cron expression, read. `either_day`: a day of the month or of the week is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either_day: bool

    def next_after(self, time_ms: int, zone: ZoneInfo) -> int | None:
        """Return the first time after `time_ms`, in epoch milliseconds; None: there is none."""
        after = datetime.fromtimestamp(time_ms / 1_000, UTC)
        # The day before, since what is left out of it may come after midnight.
        first = after.astimezone(zone).date() - timedelta(days=1)
        for number in range(_SEARCH_DAYS_MAX):
            day = first + timedelta(days=number)
            found = self._first_of(day, time_ms, zone) if self._has(day) else None
            if found is not None:
                return found
        return None

    def _first_of(self, day: date, time_ms: int, zone: ZoneInfo) -> int | None:
        """Return the first time of a day that is after `time_ms`."""
        found: int | None = None
        found_hour = 24
        for hour in self.hours:
            if hour > found_hour + _MOVED_HOURS_MAX:
                break  # nothing that clocks move on can come before this
            if _moment_ms(day, hour, self.minutes[-1], zone) <= time_ms:
                continue
            for minute in self.minutes:
                moment = _moment_ms(day, hour, minute, zone)
                if moment > time_ms and (found is None or moment < found):
                    found, found_hour = moment, min(hour, found_hour)
        return found

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month = day.day in self.days
        of_week = day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week


@lru_cache(maxsize=1_024)
def parse_cron(text: str) -> Cron:
    """Return a cron expression. ValueError: it is none, or never comes; says what is wrong."""
    fields = _SHORT.get(text.strip(), text).lower().split()
    if len(text) > _LENGTH_MAX or len(fields) != len(_FIELDS):
        raise ValueError(
            "must be a cron expression: minute, hour, day of the month, month, day of the week"
        )
    minutes, hours, days, months, weekdays = (
        _numbers(written, *kind) for written, kind in zip(fields, _FIELDS, strict=True)
    )
    cron = Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )
    if cron.next_after(0, ZoneInfo("UTC")) is None:
        raise ValueError("the cron expression names a day that never comes")
    return cron


def _numbers(written: str, what: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    numbers: set[int] = set()
    for item in written.split(","):
        span, slash, step = item.partition("/")
        start, dash, end = span.partition("-")
        try:
            every = int(step) if slash else 1
            if span == "*":
                first, last = low, high - (what == "day of the week")
            else:
                first = _number(start, low, names)
                last = _number(end, low, names) if dash else (high if slash else first)
        except ValueError:
            first, last, every = 0, 0, 0
        if every < 1 or not low <= first <= last <= high:
            raise ValueError(f"`{item}` is no {what} (from {low} to {high}) of a cron expression")
        numbers.update(range(first, last + 1, every))
    return numbers


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text) + low
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


def _moment_ms(day: date, hour: int, minute: int, zone: ZoneInfo) -> int:
    """Return a local time, in epoch milliseconds; the first of two, and moved on by as much as the
    clocks are where there is none.
    """
    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    return round(local.timestamp() * 1_000)
