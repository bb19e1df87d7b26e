"""Which messages a network server has sent before: the repeat keys of a device, in its state.

A key is kept with the time and the trace of the request that brought it. Events of that same
request share the key and are no repeats of each other. The newest keys stand in the part `seen`,
which is enough for most devices; where it is full it becomes a part of its own (`seen/<ms>`),
so that a message rewrites a few keys only.

A message loads all keys of its device, and looks for its own. So keys stand in one text, an entry
of 32 characters each: base64 of 12 bytes of the key's hash, 6 of the trace's, and 6 of the time
in milliseconds. Two different keys of a device are taken for one with a chance of 2⁻⁹⁶.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from hashlib import blake2b

from pipeline.ports import DeviceState
from pipeline.route.limits import Limits

PART = "seen"
ENTRY = 32
_KEY = 16
_TRACE = 24
_TIME_MAX = (1 << 48) - 1


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
    time_ms = min(max(time_ms, 0), _TIME_MAX)
    entry = _entry(repeat, trace, time_ms)
    head = state.get(key, PART)
    if head is None:
        state.put(key, PART, {"keys": entry, "chunks": []})
        return False
    since_ms = time_ms - window_ms
    keys, chunks = head["keys"], head["chunks"]
    first = find(keys, entry)
    if (not first or _time_ms(first) < since_ms) and chunks:
        first = _in_chunks(state, key, chunks, entry)
    if first and _time_ms(first) >= since_ms:
        return first[_KEY:_TRACE] != entry[_KEY:_TRACE]
    # The part is written whole with each message: most devices then have one key in it.
    keys = _since(keys, since_ms)
    if len(keys) >= limits.seen_keys_max * ENTRY:
        chunks = _begin_chunk(state, key, keys, chunks, since_ms=since_ms, limits=limits)
        keys = ""
    state.put(key, PART, {"keys": keys + entry, "chunks": chunks})
    return False


def _entry(repeat: str, trace: str, time_ms: int) -> str:
    return b2a_base64(
        blake2b(repeat.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        + blake2b(trace.encode("utf-8", "surrogatepass"), digest_size=6).digest()
        + time_ms.to_bytes(6),
        newline=False,
    ).decode()


def find(keys: str, entry: str) -> str:
    """Return the newest entry with the same key, empty where there is none."""
    wanted = entry[:_KEY]
    place = keys.rfind(wanted)
    while place > 0 and place % ENTRY:
        place = keys.rfind(wanted, 0, place + _KEY - 1)
    return keys[place : place + ENTRY] if place >= 0 else ""


def _time_ms(entry: str) -> int:
    return int.from_bytes(a2b_base64(entry[_TRACE:ENTRY]))


def _since(keys: str, since_ms: int) -> str:
    """Return the keys without those at the front whose window is over."""
    start = 0
    while start < len(keys) and _time_ms(keys[start : start + ENTRY]) < since_ms:
        start += ENTRY
    return keys[start:] if start else keys


def _in_chunks(state: DeviceState, key: str, chunks: list[int], entry: str) -> str:
    for number in reversed(chunks):
        found = find(state.get(key, f"{PART}/{number}") or "", entry)
        if found:
            return found
    return ""


def _begin_chunk(
    state: DeviceState, key: str, keys: str, chunks: list[int], *, since_ms: int, limits: Limits
) -> list[int]:
    """Make a chunk of the keys; return the chunks that are still needed, the new one last."""
    # Named by its newest key's time; a clock that went back must not overwrite another chunk.
    newest_ms = max(_time_ms(keys[n : n + ENTRY]) for n in range(0, len(keys), ENTRY))
    number = max(newest_ms, chunks[-1] + 1) if chunks else newest_ms
    state.put(key, f"{PART}/{number}", keys)
    kept = [each for each in chunks if each >= since_ms]
    kept = [*kept, number][-limits.seen_chunks_max :]
    for each in chunks:
        if each not in kept:
            state.delete(key, f"{PART}/{each}")
    return kept
