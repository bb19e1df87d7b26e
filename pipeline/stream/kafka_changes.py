"""The keys and values of a changelog: what changed in a stage's state, as records.

A changelog's record is one part of one key. Its key is `tenant/device#part` for a part and
`tenant/device##name` for a timer; in both halves `%`, `#` and the zero byte are written as `%25`,
`%23` and `%00`, so that the first `#` ends the key whatever devices and parts are called. Its
value is JSON (of a timer: `[due_ms, data]`); no value: the part is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

_SEPARATOR = "#"
_TIMER = "##"


class Change(NamedTuple):
    """One record for the changelog. `value` None deletes."""

    key: bytes
    value: bytes | None


def quote(text: str) -> str:
    """Return a key or a part as it stands in a changelog's key."""
    if "%" in text or "#" in text or "\0" in text:
        return text.replace("%", "%25").replace("#", "%23").replace("\0", "%00")
    return text


def unquote(text: str) -> str:
    """Undo `quote`."""
    if "%" in text:
        return text.replace("%00", "\0").replace("%23", "#").replace("%25", "%")
    return text


def part_key(key: str, part: str) -> bytes:
    """Return the changelog's key of a part."""
    return f"{quote(key)}{_SEPARATOR}{quote(part)}".encode()


def timer_key(key: str, name: str) -> bytes:
    """Return the changelog's key of a timer."""
    return f"{quote(key)}{_TIMER}{quote(name)}".encode()


def read_key(written: bytes) -> tuple[str, str, bool]:
    """Return key, part or name, and whether it is a timer's. ValueError: no changelog's key."""
    key, separator, part = written.decode().partition(_SEPARATOR)
    if not separator:
        raise ValueError(f"{written!r} is no key of a changelog: there is no # in it")
    is_timer = part.startswith(_SEPARATOR)
    return unquote(key), unquote(part[1:] if is_timer else part), is_timer


def changes_of(
    parts: Mapping[tuple[str, str], Any],
    timers: Mapping[tuple[str, str], tuple[int, Any] | None],
) -> list[Change]:
    """Return what a batch changed as records. TypeError: a value that is no JSON."""
    found = [
        Change(part_key(key, part), None if value is None else orjson.dumps(value))
        for (key, part), value in parts.items()
    ]
    found += [
        Change(timer_key(key, name), None if timer is None else orjson.dumps(timer))
        for (key, name), timer in timers.items()
    ]
    return found


def replay(
    changes: Iterable[Change],
) -> tuple[dict[str, dict[str, Any]], list[tuple[int, str, str, Any]]]:
    """Return what a changelog says, for those who look: state as key → part → value, and timers in
    order as due_ms, key, name, data.
    """
    last: dict[bytes, bytes] = {}
    for change in changes:
        last.pop(change.key, None)
        if change.value is not None:
            last[change.key] = change.value
    state: dict[str, dict[str, Any]] = {}
    timers: list[tuple[int, str, str, Any]] = []
    for written, value in last.items():
        key, name, is_timer = read_key(written)
        if is_timer:
            due_ms, data = orjson.loads(value)
            timers.append((due_ms, key, name, data))
        else:
            state.setdefault(key, {})[name] = orjson.loads(value)
    return state, sorted(timers, key=lambda timer: timer[:3])
