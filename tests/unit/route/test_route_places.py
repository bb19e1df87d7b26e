"""Places in messages, and summaries of values: the parts that nodes are made of."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MessageError
from pipeline.route.fields import FieldFault
from pipeline.route.places import MISSING, Draft, look, number_at, path_of
from pipeline.route.summary import FUNCTIONS, begin, join, result
from tests.unit.route.bench import uplink

NUMBERS = st.integers(-1_000, 1_000)


@pytest.mark.parametrize(
    "text", ["telemetry", "telemetry.", "telemetry..a", ".a", "attributes.a", "a.b", "", 7, None]
)
def test_no_place(text: Any) -> None:
    """What is no place says how to write one."""
    with pytest.raises(FieldFault) as caught:
        path_of(text)

    assert caught.value.suggestion.startswith("write a path like `telemetry.")


def test_look_finds_what_is_there() -> None:
    """A value is found at its place, null included; nothing is found past what is no mapping."""
    message = uplink(telemetry={"a": {"b": None}, "c": [1]})

    assert look(message, path_of("telemetry.a.b")) is None
    assert look(message, path_of("telemetry.a.x")) is MISSING
    assert look(message, path_of("telemetry.c.0")) is MISSING
    assert number_at(message, path_of("telemetry.a.b")) is MISSING


@pytest.mark.parametrize("value", ["1", True, [], float("nan"), float("inf")])
def test_number_at_refuses(value: Any) -> None:
    """Only finite numbers are numbers."""
    with pytest.raises(MessageError, match=r"`telemetry\.a` is no number"):
        number_at(uplink(telemetry={"a": value}), path_of("telemetry.a"))


def test_draft_changes_copies() -> None:
    """However often a draft is changed, the message and the mappings in it stay."""
    message = uplink(telemetry={"a": {"b": {"c": 1}}}, metadata={})
    before = msgspec.json.encode(message)
    draft = Draft(message)

    draft.put(path_of("telemetry.a.b.d"), 2)
    draft.put(path_of("metadata.x.y"), 3)
    assert draft.remove(path_of("telemetry.a.b.c"))
    assert not draft.remove(path_of("telemetry.a.b.c"))

    made = draft.message()
    assert made.telemetry == {"a": {"b": {"d": 2}}}
    assert made.metadata == {"x": {"y": 3}}
    assert msgspec.json.encode(message) == before


def test_draft_without_changes_is_the_message() -> None:
    """Nothing is copied where nothing changes."""
    message = uplink()

    assert Draft(message).message() is message


def summed_up(function: str, values: list[int], times: list[int]) -> Any:
    kept = None
    for value, time_ms in zip(values, times, strict=True):
        one = begin(function, value, time_ms)
        kept = one if kept is None else join(function, kept, one)
    return kept


@given(st.lists(NUMBERS, min_size=2, max_size=20), st.data())
def test_panes_sum_up_to_the_whole(values: list[int], data: st.DataObject) -> None:
    """However values are cut into panes, their summary is that of all of them."""
    times = list(range(len(values)))
    cut = data.draw(st.integers(1, len(values) - 1))
    expected = {
        "count": len(values),
        "sum": sum(values),
        "min": min(values),
        "max": max(values),
        "mean": sum(values) / len(values),
        "first": values[0],
        "last": values[-1],
        "distinct": len(set(values)),
    }
    for function in FUNCTIONS:
        one = summed_up(function, values[:cut], times[:cut])
        other = summed_up(function, values[cut:], times[cut:])
        assert result(function, join(function, one, other)) == expected[function]
