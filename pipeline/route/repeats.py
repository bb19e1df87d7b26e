"""Which messages a network server has sent before: the repeat keys of a device, in its state.

A key is kept with the time and the trace of the request that brought it. Events of that same
request share the key and are no repeats of each other.

Keys stand in a text, an entry of 32 characters each: base64 of 12 bytes of the key's hash, 6 of
the trace's, and 6 of the time in milliseconds. Two different keys of a device are taken for one
with a chance of 2⁻⁹⁶. The newest entries are the part `seen`, which a message rewrites. Where it
is full it becomes a chunk, `!seen/<ms>`, which is loaded when one of its keys may be asked for
again: `seen/chunks` has the first 5 characters of each, by chunk.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from hashlib import blake2b
from typing import Any

from pipeline.ports import ASIDE, DeviceState
from pipeline.route.limits import Limits

PART = "seen"
CHUNKS = "seen/chunks"
CHUNK = f"{ASIDE}seen/"
ENTRY = 32
_HINT = 5
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
    since_ms = time_ms - window_ms
    keys: Any = state.get(key, PART) or ""
    if type(keys) is not str:
        _forget_earlier_form(state, key, keys)
        keys = ""
    chunks: dict[str, str] = state.get(key, CHUNKS) or {}
    if chunks and int(next(reversed(chunks))) < since_ms:
        _keep_chunks(state, key, chunks, {})
        chunks = {}
    first = find(keys, entry)
    if (not first or _time_ms(first) < since_ms) and chunks:
        first = _find_in_chunks(state, key, chunks, entry)
    if first and _time_ms(first) >= since_ms:
        return first[_KEY:_TRACE] != entry[_KEY:_TRACE]
    # The part is written whole with each message: most devices then have one key in it.
    keys = _since(keys, since_ms)
    if len(keys) >= limits.seen_keys_max * ENTRY:
        _begin_chunk(state, key, keys, chunks, since_ms=since_ms, limits=limits)
        keys = ""
    state.put(key, PART, keys + entry)
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


def _find_in_chunks(state: DeviceState, key: str, chunks: dict[str, str], entry: str) -> str:
    hint = entry[:_HINT]
    for number in reversed(chunks):
        if hint in chunks[number]:
            found = find(state.get(key, f"{CHUNK}{number}") or "", entry)
            if found:
                return found
    return ""


def _begin_chunk(
    state: DeviceState,
    key: str,
    keys: str,
    chunks: dict[str, str],
    *,
    since_ms: int,
    limits: Limits,
) -> None:
    """Make a chunk of the keys, and forget those chunks that are not needed any more."""
    places = range(0, len(keys), ENTRY)
    # Named by its newest key's time; a clock that went back must not overwrite another chunk.
    newest_ms = max(_time_ms(keys[place : place + ENTRY]) for place in places)
    number = max(newest_ms, int(next(reversed(chunks))) + 1) if chunks else newest_ms
    state.put(key, f"{CHUNK}{number}", keys)
    hints = "".join(keys[place : place + _HINT] for place in places)
    needed = [(name, text) for name, text in chunks.items() if int(name) >= since_ms]
    kept = dict([*needed, (str(number), hints)][-limits.seen_chunks_max :])
    _keep_chunks(state, key, chunks, kept)


def _keep_chunks(
    state: DeviceState, key: str, chunks: dict[str, str], kept: dict[str, str]
) -> None:
    state.put(key, CHUNKS, kept or None)
    for each in chunks:
        if each not in kept:
            state.delete(key, f"{CHUNK}{each}")


def _forget_earlier_form(state: DeviceState, key: str, head: dict[str, Any]) -> None:
    """Forget the keys of a log that an earlier program wrote, in a form of its own."""
    for number in head.get("chunks", ()):
        state.delete(key, f"seen/{number}")
