from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.sink.retry import RetryConfig, byte_count, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("250ms", 0.25), ("10s", 10), ("5m", 300), ("6h", 21_600), ("7d", 604_800), ("1.5", 1.5)],
)
def test_duration_units(text: str, value: float) -> None:
    """A duration may be written with its unit; without one it is in seconds."""
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("100MB", 10**8), ("1GiB", 1 << 30), ("64 kB", 64_000)]
)
def test_size_units(text: str, value: int) -> None:
    """A size may be written with its unit, decimal or binary."""
    assert byte_count(text) == value


@pytest.mark.parametrize("text", ["", "soon", "10 parsecs", "-5s", "s"])
def test_what_is_no_duration_is_refused_in_words(text: str) -> None:
    """Text that is no duration is refused with how to write one."""
    with pytest.raises(ValidationError, match="write a duration"):
        RetryConfig.model_validate({"first": text})


@pytest.mark.parametrize("text", ["big", "10 stones"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Text that is no size is refused with how to write one."""
    with pytest.raises(ValueError, match="write a size"):
        byte_count(text)


def test_wait_grows_by_the_factor_up_to_the_most() -> None:
    """Waits are first, first times factor, …, and never more than `max`, however many attempts."""
    retry = RetryConfig(first=1, factor=2, max=10, jitter=0)
    assert [retry.delay_s(n, 0.9) for n in (1, 2, 3, 4, 5, 100_000)] == [1, 2, 4, 8, 10, 10]


def test_jitter_takes_a_part_of_the_wait_away() -> None:
    """Jitter 0.5 spreads waits between half of them and all."""
    retry = RetryConfig(first=8, jitter=0.5)
    assert retry.delay_s(1, 0.0) == 8
    assert retry.delay_s(1, 0.5) == 6


def test_by_default_nothing_is_given_up() -> None:
    """Without `give_up_after` a delivery is tried for ever."""
    assert RetryConfig().give_up_after is None


def test_a_schedule_of_its_own() -> None:
    """`waits` are taken one after the other, the last again and again, with jitter as ever."""
    retry = RetryConfig.model_validate({"waits": ["5s", "5m", "2h"], "jitter": 0.5})
    assert [retry.delay_s(n, 0.0) for n in (1, 2, 3, 4, 100_000)] == [5, 300, 7_200, 7_200, 7_200]
    assert retry.delay_s(3, 0.5) == 5_400


@pytest.mark.parametrize("more", [{"first": 1}, {"factor": 2}, {"max": "5m"}])
def test_there_is_one_schedule(more: dict[str, object]) -> None:
    """`waits` beside what it stands in place of is refused in words."""
    with pytest.raises(ValidationError, match="stands in place of"):
        RetryConfig.model_validate({"waits": ["5s"]} | more)


def test_waits_have_limits() -> None:
    """A wait is neither nothing nor longer than a day."""
    for wait in ("0s", "25h"):
        with pytest.raises(ValidationError):
            RetryConfig.model_validate({"waits": [wait]})
