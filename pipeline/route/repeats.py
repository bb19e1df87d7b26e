"""Which messages a network server has sent before: the repeat keys of a device, in its state.

A key is kept with the time and the trace of the request that brought it. Events of that same
request share the key and are no repeats of each other. Keys stand in chunks (`seen/<start_ms>`),
so that a message rewrites a few keys only, and old chunks go as a whole.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from pipeline.ports import DeviceState
from pipeline.route.limits import Limits

PART_PREFIX = "seen/"
_KEY_LENGTH_MAX = 64
_CHUNKS_A_WINDOW = 4  # a chunk is closed after this part of the window, so that old keys can go


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
    chunks = list(state.scan(key, PART_PREFIX))
    since_ms = time_ms - window_ms
    for _, seen in reversed(chunks):
        first = seen.get(repeat)
        if first is not None and first[0] >= since_ms:
            return bool(first[1] != trace)
    part, seen = _open_chunk(chunks, time_ms, window_ms, limits)
    state.put(key, part, {**seen, repeat: [time_ms, trace]})
    if not seen:
        _drop_old(state, key, chunks, since_ms, limits)
    return False


def _open_chunk(
    chunks: list[tuple[str, Any]], time_ms: int, window_ms: int, limits: Limits
) -> tuple[str, dict[str, Any]]:
    """Return the chunk that takes the next key: the newest one, or a new one."""
    if not chunks:
        return f"{PART_PREFIX}{time_ms}", {}
    part, seen = chunks[-1]
    start_ms = int(part[len(PART_PREFIX) :])
    # A clock that went back (time_ms < start_ms) goes on with the newest chunk as well.
    if len(seen) < limits.seen_keys_max and time_ms <= start_ms + window_ms // _CHUNKS_A_WINDOW:
        return part, seen
    return f"{PART_PREFIX}{max(time_ms, start_ms + 1)}", {}


def _drop_old(
    state: DeviceState, key: str, chunks: list[tuple[str, Any]], since_ms: int, limits: Limits
) -> None:
    for number, (part, seen) in enumerate(chunks):
        newest_ms = max(first[0] for first in seen.values())
        if newest_ms < since_ms or number <= len(chunks) - limits.seen_chunks_max:
            state.delete(key, part)
