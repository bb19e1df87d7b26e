"""The attributes of a device in its state: a part a scope, each value with its time.

An older time overwrites a newer value only where a rule says so; what changes nothing writes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import MessageError
from pipeline.ports import DeviceState
from pipeline.route.storable import size_of

PART_PREFIX = "attributes/"
_NOTHING: dict[str, dict[str, Any]] = {"values": {}, "times": {}}
_EXACT = (dict, list, bool)  # in Python True is 1, also deep inside
_encode = msgspec.json.Encoder(order="sorted").encode


class Change(NamedTuple):
    """What an update did: the keys, their new values (those deleted have none) and the old."""

    scope: str
    changed: tuple[str, ...]
    values: dict[str, Any]
    previous: dict[str, Any]


def values_of(state: DeviceState, key: str, scope: str) -> dict[str, Any]:
    """Return the values of one scope; never to be changed in place."""
    part = state.get(key, PART_PREFIX + scope)
    if part is None:
        return {}
    values: dict[str, Any] = part["values"]
    return values


def change(
    state: DeviceState,
    key: str,
    scope: str,
    values: Mapping[str, Any],
    *,
    delete: Iterable[str] = (),
    time_ms: int,
    bytes_max: int,
    overwrite_newer: bool = False,
) -> Change | None:
    """Set and delete attributes as of `time_ms`; None: nothing changed. With `overwrite_newer`
    values that are newer than that are set too.

    MessageError: the scope would be larger than `bytes_max` as JSON (code `attributes_limit`), or
    a value cannot be kept (`state`).
    """
    part = state.get(key, PART_PREFIX + scope) or _NOTHING
    now, times = part["values"], part["times"]
    fresh = {}
    for name, value in values.items():
        if name in now:
            newer = times[name] > time_ms and not overwrite_newer
            if newer or same(now[name], value):
                continue
        fresh[name] = value
    gone = [name for name in delete if name in now and times[name] <= time_ms]
    if not fresh and not gone:
        return None
    after = {**now, **fresh}
    times_after = {**times, **dict.fromkeys(fresh, time_ms)}
    for name in gone:
        after.pop(name, None)
        times_after.pop(name, None)
    whole = {"values": after, "times": times_after}
    if fresh and (size := size_of(whole)) > bytes_max:
        raise MessageError(
            f"the device's {scope} attributes would take {size} bytes; the limit is {bytes_max}",
            code="attributes_limit",
            scope=scope,
            limit=bytes_max,
        )
    state.put(key, PART_PREFIX + scope, whole if after else None)
    changed = (*fresh, *(name for name in gone if name not in fresh)) if gone else tuple(fresh)
    previous = {name: now[name] for name in changed if name in now}
    if gone:
        fresh = {name: value for name, value in fresh.items() if name in after}
    return Change(scope, changed, fresh, previous)


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: 1 is 1.0, but neither is true."""
    if one == other:
        if isinstance(one, _EXACT) or isinstance(other, bool):
            return type(one) is type(other) and _encode(one) == _encode(other)
        return True
    return False
