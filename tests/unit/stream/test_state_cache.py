"""State as the engine reads it: from the file once, then from memory, within limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from pipeline.stream.database import TABLES, write_rows
from pipeline.stream.state_cache import StateCache


@pytest.fixture
def store() -> Iterator[sqlite3.Connection]:
    """An empty database with the log's tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    yield connection
    connection.close()


def put(store: sqlite3.Connection, key: str, part: str, value: Any, stage: str = "s") -> None:
    entry = orjson.dumps((key, part, value))
    write_rows(store, "REPLACE INTO state VALUES", [(stage, key, part, entry)])


def commit(cache: StateCache, changes: dict[tuple[str, str], Any]) -> None:
    rows = [
        ("s", key, part, orjson.dumps((key, part, value)))
        for (key, part), value in changes.items()
        if value is not None
    ]
    cache.committed(rows, [("s", key, part) for (key, part) in changes if not changes[key, part]])


def test_all_parts_of_all_keys_come_at_once(store: sqlite3.Connection) -> None:
    """Keys with odd names, keys without parts and other stages' parts are told apart."""
    put(store, 'a"b\\c\n', "p", {"x": [1, None, "ü"]})
    put(store, 'a"b\\c\n', "q", 2**53 + 1)
    put(store, "k", "p", "other stage", stage="t")
    cache = StateCache(store, "s", 10, 1_000_000)
    cache.prepare(['a"b\\c\n', "k"])
    assert cache.load('a"b\\c\n') == {"p": {"x": [1, None, "ü"]}, "q": 2**53 + 1}
    assert cache.load("k") == {}


def test_what_is_kept_is_not_read_again(store: sqlite3.Connection) -> None:
    """A key that is in memory stays as it was committed here."""
    put(store, "k", "p", 1)
    cache = StateCache(store, "s", 10, 1_000_000)
    assert cache.load("k") == {"p": 1}
    put(store, "k", "p", 2)
    assert cache.load("k") == {"p": 1}


def test_what_is_aside_is_read_when_it_is_asked_for(store: sqlite3.Connection) -> None:
    """Parts aside do not come with their key, and are not kept; they come by prefix, as stored."""
    for part in ("p", "!a", "!a/1", "!b", '"', "ü"):
        put(store, "k", part, part)
    put(store, "kk", "!a", "another key's")
    cache = StateCache(store, "s", 10, 1_000_000)
    assert cache.load("k") == {'"': '"', "p": "p", "ü": "ü"}
    commit(cache, {("k", "!a"): "new", ("k", "!c"): "new", ("k", "!b"): None})
    assert cache.load("k") == {'"': '"', "p": "p", "ü": "ü"}
    assert cache.load_aside("k", "!a") == {"!a": "!a", "!a/1": "!a/1"}
    put(store, "k", "!a", "newer")
    assert cache.load_aside("k", "!a") == {"!a": "newer", "!a/1": "!a/1"}
    assert cache.load_aside("none", "!a") == {}


def test_commits_reach_the_kept_keys(store: sqlite3.Connection) -> None:
    """New values and deletions are seen by the next load; keys that are not kept are read."""
    cache = StateCache(store, "s", 10, 1_000_000)
    cache.load("k")
    commit(cache, {("k", "p"): 1, ("k", "q"): 2, ("z", "p"): 9})
    commit(cache, {("k", "q"): None})
    assert cache.load("k") == {"p": 1}
    assert cache.load("z") == {}


def test_the_keys_used_longest_ago_go_first(store: sqlite3.Connection) -> None:
    """Past the limit of keys, those that were used last stay."""
    cache = StateCache(store, "s", 2, 1_000_000)
    cache.prepare(["a", "b"])
    cache.prepare(["a"])
    cache.prepare(["c"])
    cache.committed((), ())
    put(store, "a", "p", 1)
    put(store, "b", "p", 1)
    assert cache.load("a") == {}
    assert cache.load("b") == {"p": 1}


def test_the_bytes_are_limited(store: sqlite3.Connection) -> None:
    """However large the values, what is kept stays below the limit of bytes."""
    for number in range(20):
        put(store, f"k{number}", "p", "x" * 1_000)
    cache = StateCache(store, "s", 1_000, 5_000)
    for number in range(20):
        cache.load(f"k{number}")
        cache.committed((), ())
        assert cache._bytes <= 5_000
    for number in range(20):
        cache.load(f"k{number}")
        commit(cache, {(f"k{number}", "p"): "y" * 3_000})
        assert cache._bytes <= 5_000
    assert len(cache._entries) == 1


def test_a_part_that_is_written_often_does_not_seem_large(store: sqlite3.Connection) -> None:
    """A value counts as long as it is there; those before it do not push other keys out."""
    cache = StateCache(store, "s", 1_000, 5_000)
    cache.prepare(["other", "k"])
    for number in range(1_000):
        commit(cache, {("k", "p"): [number], ("k", "q"): "x" * 100})
    commit(cache, {("k", "p"): None, ("k", "q"): None})
    assert set(cache._entries) == {"other", "k"}
    assert cache._bytes == 600
