"""The keys of a changelog: what goes in comes out, whatever devices and parts are called."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.stream.kafka_changes import (
    Change,
    changes_of,
    part_key,
    read_key,
    replay,
    timer_key,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    "#%/0235\0a", max_size=12
)


@given(key=_TEXT, name=_TEXT)
def test_keys_are_read_as_written(key: str, name: str) -> None:
    """A part's and a timer's key give back key and name, and tell which of the two it is."""
    assert read_key(part_key(key, name)) == (key, name, False)
    assert read_key(timer_key(key, name)) == (key, name, True)


@given(one=st.tuples(_TEXT, _TEXT), other=st.tuples(_TEXT, _TEXT))
def test_different_parts_have_different_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    """No two parts or timers share a record's key, so that none overwrites another."""
    assert (part_key(*one) == part_key(*other)) == (one == other)
    assert part_key(*one) != timer_key(*other)


def test_the_usual_key_is_plain() -> None:
    """A device's part can be found by who reads the topic with any tool."""
    assert part_key("acme/sensor:1", "attributes/shared") == b"acme/sensor:1#attributes/shared"
    assert timer_key("acme/sensor:1", "expire/d1") == b"acme/sensor:1##expire/d1"
    assert part_key("acme/a#b", "50%") == b"acme/a%23b#50%25"


def test_a_replay_gives_the_last_values() -> None:
    """Of each part the last value counts; deletions and timers are told apart from parts."""
    first = changes_of({("k", "a"): 1, ("k", "b"): [2]}, {("k", "t"): (9, {"x": 1})})
    second = changes_of({("k", "a"): None, ("j", "#c"): "3"}, {("j", "t"): (5, None)})
    state, timers = replay([*first, *second, Change(timer_key("k", "gone"), None)])
    assert state == {"k": {"b": [2]}, "j": {"#c": "3"}}
    assert timers == [(5, "j", "t", None), (9, "k", "t", {"x": 1})]
