"""What a stage keeps of its keys: parts that are loaded with their key, and parts aside."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.ports import DeviceState

STORED = {"near": 1, "!a/1": 1, "!a/2": 2, "!b": 3}


class Store:
    """An engine's store that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.state = DeviceState(self.load, self.load_aside)

    def load(self, key: str) -> dict[str, Any]:
        self.asked.append((key, ""))
        return {part: value for part, value in STORED.items() if part[0] != "!"}

    def load_aside(self, key: str, prefix: str) -> dict[str, Any]:
        self.asked.append((key, prefix))
        return {part: value for part, value in STORED.items() if part.startswith(prefix)}


@pytest.fixture
def store() -> Store:
    """A store with one near part and three aside."""
    return Store()


def test_what_is_aside_is_loaded_by_name(store: Store) -> None:
    """Near parts come with the key, and those aside one by one, once each."""
    assert store.state.get("k", "near") == 1
    assert store.state.get("k", "away") is None
    assert store.asked == [("k", "")]
    assert store.state.get("k", "!a/2") == 2
    assert store.state.get("k", "!a/2") == 2
    assert store.asked == [("k", ""), ("k", "!a/2")]


def test_scan_brings_what_is_aside(store: Store) -> None:
    """A prefix of near parts loads nothing more; one aside its own parts; none all parts."""
    assert dict(store.state.scan("k", "n")) == {"near": 1}
    assert store.asked == [("k", "")]
    assert dict(store.state.scan("k", "!a/")) == {"!a/1": 1, "!a/2": 2}
    assert dict(store.state.scan("k")) == STORED


def test_changes_count_more_than_what_is_stored(store: Store) -> None:
    """A part aside that was changed or deleted by this batch is not loaded over it."""
    state = store.state
    state.put("k", "!a/1", 10)
    state.delete("k", "!a/2")
    assert state.get("k", "!a/1") == 10
    assert state.get("k", "!a/2") is None
    assert dict(state.scan("k", "!a")) == {"!a/1": 10}
    assert state.changes == {("k", "!a/1"): 10, ("k", "!a/2"): None}


def test_a_rollback_brings_back_what_is_stored(store: Store) -> None:
    """After a rollback a part aside is as the store has it, whether it had been loaded or not."""
    state = store.state
    assert state.get("k", "!a/1") == 1
    mark = state.savepoint()
    for part in ("!a/1", "!a/2"):
        state.put("k", part, 10)
        state.delete("k", part)
    state.rollback(mark)
    assert dict(state.scan("k", "!a")) == {"!a/1": 1, "!a/2": 2}
    assert not state.changes
