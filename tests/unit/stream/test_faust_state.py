"""A partition's state, and its changelog."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ports import DueTimer
from pipeline.stream.faust_state import CLOCK, PartitionState, rows
from pipeline.stream.kafka_changes import Change, replay

NAMES = st.text(alphabet="a/#%0:", max_size=4)
STEPS = st.lists(
    st.tuples(
        NAMES,
        NAMES,
        st.one_of(st.none(), st.integers(-9, 9)),
        st.one_of(st.none(), st.integers(0, 9)),
    )
)


def shown(state: PartitionState) -> tuple[dict[str, dict[str, Any]], list[tuple[Any, ...]]]:
    """Return parts and timers."""
    timers = [(each.due_ms, each.key, each.name, each.data) for each in state.due(10**9, 10**6)]
    return {key: state.load(key) for key in state.parts}, timers


@given(steps=STEPS)
def test_a_restore_gives_what_was_there(
    steps: list[tuple[str, str, int | None, int | None]],
) -> None:
    """State that took in each batch, and state restored from the changelog, are the same, and
    what anyone reads from the changelog is that too, whatever keys and names are.
    """
    here = PartitionState()
    changelog: list[Change] = []
    for number, (key, part, value, due_ms) in enumerate(steps):
        timer = None if due_ms is None else (due_ms, {"by": number})
        batch = rows({(key, part): value}, {(key, part): timer}, [], number, number + 7)
        here.apply(batch)
        changelog += batch
    restored = PartitionState()
    restored.apply(changelog)

    assert shown(restored) == shown(here)
    assert restored.now_ms == here.now_ms == max(0, len(steps) - 1)
    assert restored.following == here.following == (len(steps) + 6 if steps else 0)
    assert replay(each for each in changelog if each.key != CLOCK) == shown(here)


def test_what_is_aside_does_not_come_with_its_key() -> None:
    """Parts aside are found by their prefix alone."""
    state = PartitionState()
    state.apply(rows({("k", part): part for part in ("p", "!a", "!a/1", "!b")}, {}, [], 1, 2))
    assert state.load("k") == {"p": "p"}
    assert state.load_aside("k", "!a") == {"!a": "!a", "!a/1": "!a/1"}
    assert state.load_aside("none", "!") == {}


def test_the_last_record_of_a_batch_is_no_deletion() -> None:
    """Compaction leaves the last record of a changelog, for which Faust's restore waits."""
    fired = DueTimer("k", "t", 5)

    assert [row.value is None for row in rows({("k", "p"): None}, {}, [fired], 7, 1)] == [
        True,
        True,
        False,
    ]


def test_a_timer_that_fired_is_gone_unless_it_was_set_anew() -> None:
    """Firing deletes a timer; a stage that sets it again while it fires keeps it."""
    state = PartitionState()
    state.apply(rows({}, {("k", "a"): (5, None), ("k", "b"): (6, None)}, [], 1, 1))
    fired = state.due(10, 10)
    assert [timer.name for timer in fired] == ["a", "b"]
    state.apply(rows({}, {("k", "b"): (20, 1)}, fired, 10, 1))

    assert state.due(10, 10) == []
    assert state.next_due_ms() == 20
    assert state.due(20, 10) == [DueTimer("k", "b", 20, 1)]


def test_due_timers_stay_until_they_are_committed() -> None:
    """A batch that failed leaves its timers, in the same order, and no more than it may have."""
    state = PartitionState()
    state.apply(rows({}, {(key, "t"): (5, None) for key in "cab"}, [], 1, 1))

    assert [timer.key for timer in state.due(5, 2)] == ["a", "b"]
    assert [timer.key for timer in state.due(5, 10)] == ["a", "b", "c"]
    assert state.due(4, 10) == []


def test_time_never_goes_back() -> None:
    """The clock of a changelog that two workers wrote is the latest of both."""
    state = PartitionState()
    state.apply([Change(CLOCK, b"[9,4]"), Change(CLOCK, b"[7,5]")])

    assert (state.now_ms, state.following) == (9, 5)


def test_a_foreign_record_is_refused() -> None:
    """What no engine wrote there is not taken for state."""
    with pytest.raises(ValueError, match="no key of a changelog"):
        PartitionState().apply([Change(b"foreign", b"1")])


def test_a_value_that_is_no_json_is_refused() -> None:
    """It fails before anything is written."""
    with pytest.raises(TypeError):
        rows({("k", "p"): object()}, {}, [], 1, 1)
