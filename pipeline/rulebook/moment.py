"""A moment as people write it: `2h` (ago), or a time with its zone."""

from __future__ import annotations

from datetime import datetime

from pipeline.rulebook.duration import parse_duration


def parse_moment(text: str, now_ms: int) -> int:
    """Return a moment, epoch milliseconds: so long before `now_ms`, or a time in RFC 3339.

    ValueError: it is neither; says what can be written.
    """
    try:
        return now_ms - round(parse_duration(text) * 1_000)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} is neither a duration (2h) nor a time (2026-01-31T12:00Z)")
    return round(moment.timestamp() * 1_000)
