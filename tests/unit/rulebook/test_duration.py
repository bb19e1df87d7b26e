from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.duration import parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("10s", 10),
        ("250ms", 0.25),
        ("5m", 300),
        ("6h", 21_600),
        ("7d", 604_800),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("1.5s", 1.5),
        ("15", 15),
        (10, 10),
        (0, 0),
        (0.5, 0.5),
    ],
)
def test_durations_are_seconds(written: Any, seconds: float) -> None:
    """Units add up; a number, also as text from a variable, is seconds."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        *("", "s", "10 seconds", "-1s", "1w", "m5", "1e3", "10S"),
        *(-1, True, None, [], {}, float("nan"), float("inf"), "1s" * 30),
    ],
)
def test_anything_else_is_refused_with_examples(written: Any) -> None:
    """The refusal says how durations are written."""
    with pytest.raises(ValueError, match="must be a duration like `10s`, `5m`, `6h`, `7d`"):
        parse_duration(written)
