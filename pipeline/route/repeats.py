"""Which messages a network server has sent before: the repeat keys of a device, in its state.

A key is kept with the time and the trace of the request that brought it. Events of that same
request share the key and are no repeats of each other. The newest keys stand in the part `seen`,
which is enough for most devices; where it is full it becomes a part of its own (`seen/<ms>`),
so that a message rewrites a few keys only.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from pipeline.ports import DeviceState
from pipeline.route.limits import Limits

PART = "seen"
_KEY_LENGTH_MAX = 64


def is_repeat(
    state: DeviceState,
    key: str,
    repeat: str,
    *,
    trace: str,
    time_ms: int,
    window_ms: int,
    limits: Limits,
) -> bool:
    """Return whether another request brought `repeat` within the window; else remember it.

    `time_ms` is the record's time, so that the same log gives the same answers again.
    """
    if len(repeat) > _KEY_LENGTH_MAX:
        repeat = blake2b(repeat.encode(), digest_size=24).hexdigest()
    head = state.get(key, PART)
    entry = [time_ms, trace]
    if head is None:
        state.put(key, PART, {"keys": {repeat: entry}, "chunks": []})
        return False
    since_ms = time_ms - window_ms
    keys, chunks = head["keys"], head["chunks"]
    first = keys.get(repeat)
    if (first is None or first[0] < since_ms) and chunks:
        first = _in_chunks(state, key, chunks, repeat)
    if first is not None and first[0] >= since_ms:
        return bool(first[1] != trace)
    if len(keys) >= limits.seen_keys_max:
        keys, chunks = _make_room(state, key, head, since_ms, limits)
    elif keys and next(iter(keys.values()))[0] < since_ms:
        # The part is written whole with each message: most devices then have one key in it.
        keys = {name: seen for name, seen in keys.items() if seen[0] >= since_ms}
    state.put(key, PART, {"keys": {**keys, repeat: entry}, "chunks": chunks})
    return False


def _in_chunks(state: DeviceState, key: str, chunks: list[int], repeat: str) -> Any:
    """Return the newest entry of a repeat key, None where there is none."""
    for number in reversed(chunks):
        entry = (state.get(key, f"{PART}/{number}") or {}).get(repeat)
        if entry is not None:
            return entry
    return None


def _make_room(
    state: DeviceState, key: str, head: dict[str, Any], since_ms: int, limits: Limits
) -> tuple[dict[str, Any], list[int]]:
    """Return the keys that are still needed and the chunks; where all are, they become a chunk."""
    keys = {name: entry for name, entry in head["keys"].items() if entry[0] >= since_ms}
    chunks: list[int] = head["chunks"]
    if len(keys) < limits.seen_keys_max:
        return keys, chunks
    # Named by its newest key's time; a clock that went back must not overwrite another chunk.
    newest_ms = max(entry[0] for entry in keys.values())
    number = max(newest_ms, chunks[-1] + 1) if chunks else newest_ms
    state.put(key, f"{PART}/{number}", keys)
    kept = [each for each in chunks if each >= since_ms]
    kept = [*kept, number][-limits.seen_chunks_max :]
    for each in chunks:
        if each not in kept:
            state.delete(key, f"{PART}/{each}")
    return {}, kept
