"""A partition's store: what was committed is there, in order of time where it is a timer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import RetryableError
from pipeline.stream.kafka_changes import changes_of
from pipeline.stream.kafka_store import NEVER, Checkpoint, PartitionStore, StoreError

BUFFER = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionStore]:
    """A store of the test's own."""
    found = PartitionStore(tmp_path / "0", BUFFER)
    yield found
    found.close()


def put(store: PartitionStore, parts: dict[tuple[str, str], Any], offset: int = 1) -> None:
    store.apply(changes_of(parts, {}), offset, 7, "topic")


def time(store: PartitionStore, timers: dict[tuple[str, str], Any], offset: int = 1) -> None:
    store.apply(changes_of({}, timers), offset, 7, "topic")


def test_parts_of_one_key_alone(store: PartitionStore) -> None:
    """A key's parts are found, those of keys that begin alike or lie beside it are not."""
    put(store, {("k", "a"): 1, ("k", "b/c"): [2], ("k#", "a"): 3, ("k/1", "a"): 4, ("", "a"): 5})
    assert store.load("k") == {"a": 1, "b/c": [2]}
    assert store.load("k#") == {"a": 3}
    assert store.load("") == {"a": 5}
    assert store.load("none") == {}
    put(store, {("k", "a"): None})
    assert store.load("k") == {"b/c": [2]}


def test_what_is_aside_does_not_come_with_its_key(store: PartitionStore) -> None:
    """Parts aside are found by their prefix alone, those of other keys not."""
    parts = ["p", "!a", "!a#1", "!b", '"', "ü"]
    put(store, {("k", part): part for part in parts} | {("k!", "!a"): 1, ("k!", "p"): 2})
    assert store.load("k") == {'"': '"', "p": "p", "ü": "ü"}
    assert store.load_aside("k", "!a") == {"!a": "!a", "!a#1": "!a#1"}
    assert store.load_aside("k", "!a#") == {"!a#1": "!a#1"}
    assert store.load_aside("k!", "!") == {"!a": 1}
    assert store.load_aside("none", "!") == {}
    assert len(list(store.parts())) == 8


def test_all_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    """Parts, timers and the checkpoint outlive the process."""
    store = PartitionStore(tmp_path / "0", BUFFER)
    put(store, {("k", "a"): 1}, 41)
    time(store, {("k", "t"): (50, {"n": 1})}, 42)
    store.close(99)
    again = PartitionStore(tmp_path / "0", BUFFER)
    assert again.checkpoint == Checkpoint(42, 99, "topic")
    assert again.next_due_ms == 50
    assert list(again.parts()) == [("k", "a", 1)]
    (timer,) = again.due(50, 10)
    assert (timer.key, timer.name, timer.due_ms, timer.data) == ("k", "t", 50, {"n": 1})
    again.close()


def test_timers_by_time_key_and_name(store: PartitionStore) -> None:
    """Due timers come in order, up to the limit; a replaced one stands at its new time alone."""
    time(store, {("b", "x"): (5, 1), ("a", "y"): (5, 2), ("a!", "x"): (5, 3), ("a", "x"): (9, 4)})
    time(store, {("b", "z"): (1, 5), ("a", "x"): (5, 6)}, 2)
    assert store.next_due_ms == 1
    assert [(t.key, t.name) for t in store.due(5, 3)] == [("b", "z"), ("a", "x"), ("a", "y")]
    assert [t.due_ms for t in store.due(4, 3)] == [1]
    assert len(store.due(100, 100)) == 5
    assert store.due(0, 100) == []


def test_a_timer_taken_back_and_set_in_one_commit(store: PartitionStore) -> None:
    """Of several changes of one timer in one write the last one counts, none is left behind."""
    first = changes_of({}, {("k", "t"): (5, 1)})
    later = changes_of({}, {("k", "t"): (8, 2)})
    gone = changes_of({}, {("k", "t"): None})
    store.apply([*first, *gone, *later], 3, 7, "topic")
    assert [(t.due_ms, t.data) for t in store.due(100, 9)] == [(8, 2)]
    store.apply([*first, *gone], 4, 7, "topic")
    assert store.due(100, 9) == []
    assert store.next_due_ms == NEVER


_STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.none() | st.integers(-3, 60)),
    max_size=40,
)


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(steps=_STEPS, fire=st.integers(0, 70))
def test_timers_are_as_in_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int | None]], fire: int
) -> None:
    """After any sets and cancels the due timers are those of a plain dictionary, in order."""
    store = PartitionStore(tmp_path_factory.mktemp("store") / "0", BUFFER)
    kept: dict[tuple[str, str], int] = {}
    for number, (key, name, due_ms) in enumerate(steps):
        timer = None if due_ms is None else (due_ms, number)
        time(store, {(key, name): timer}, number)
        if due_ms is None:
            kept.pop((key, name), None)
        else:
            kept[key, name] = due_ms
    expected = sorted((max(due, 0), *name) for name, due in kept.items() if due <= fire)
    found = store.due(fire, 1_000)
    assert [(max(timer.due_ms, 0), timer.key, timer.name) for timer in found] == expected
    assert store.next_due_ms == min((max(due, 0) for due in kept.values()), default=NEVER)
    store.close()


def test_a_broken_store_begins_anew(tmp_path: Path) -> None:
    """A store whose files are no store is deleted, and a new one stands at the beginning."""
    store = PartitionStore(tmp_path / "0", BUFFER)
    put(store, {("k", "a"): 1}, 41)
    store.close()
    (tmp_path / "0" / "CURRENT").write_text("nonsense")
    again = PartitionStore(tmp_path / "0", BUFFER)
    assert again.checkpoint.next == 0
    assert again.load("k") == {}
    again.close()


def test_a_store_of_another_format_begins_anew(tmp_path: Path) -> None:
    """What another version wrote in another format is not read as if it were ours."""
    store = PartitionStore(tmp_path / "0", BUFFER)
    put(store, {("k", "a"): 1}, 41)
    store._db.put(b"m", b'{"next":41,"time_ms":7,"topic_id":"topic","format":2}')
    store.close()
    again = PartitionStore(tmp_path / "0", BUFFER)
    assert again.checkpoint.next == 0
    again.close()


def test_no_place_for_a_store(tmp_path: Path) -> None:
    """Where no store can be made the worker waits, and says where it wanted it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RetryableError, match="Cannot keep state in"):
        PartitionStore(tmp_path / "file" / "0", BUFFER)


def test_what_goes_wrong_is_a_store_error(store: PartitionStore) -> None:
    """Whatever RocksDB raises comes as the one error that has the store made again."""
    store._db.put(b"pk#a", b"no json")
    with pytest.raises(StoreError):
        store.load("k")
    store.clear()
    assert store.load("k") == {}
