"""How a device relates to others, in its state: one small part a relation and other device.

In: relations that nodes ask for, and news of them from the other device. Out: parts
`relation/<way>/<relation>/<other>`; `way` is `to` (this device relates to the other) or `from`.
The other device is told on `device.events`, so that both sides know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pipeline.errors import MessageError
from pipeline.integrations.dialect import check_device_name
from pipeline.ports import DeviceState

Way = Literal["to", "from"]
WAYS: tuple[Way, ...] = ("to", "from")
PREFIX = "relation/"


def back(way: Way) -> Way:
    """Return how the other device sees a relation."""
    return "from" if way == "to" else "to"


def others(state: DeviceState, key: str, way: Way, relation: str) -> list[str]:
    """Return the devices of one relation, in order of name."""
    prefix = _part(way, relation, "")
    return [part[len(prefix) :] for part, _ in state.scan(key, prefix)]


def relations_of(state: DeviceState, key: str) -> dict[str, dict[str, list[str]]]:
    """Return all relations: way → relation → other devices."""
    found: dict[str, dict[str, list[str]]] = {way: {} for way in WAYS}
    for part, _ in state.scan(key, PREFIX):
        _, way, relation, other = part.split("/", 3)
        found[way].setdefault(relation, []).append(other)
    return found


def put(
    state: DeviceState, key: str, way: Way, relation: str, other: str, *, relations_max: int
) -> bool:
    """Keep a relation; False: it was there. MessageError (code `relations`): there are too many."""
    part = _part(way, relation, other)
    if state.get(key, part) is not None:
        return False
    if sum(1 for _ in state.scan(key, PREFIX)) >= relations_max:
        raise MessageError(
            f"the device has {relations_max} relations already",
            code="relations",
            limit=relations_max,
        )
    state.put(key, part, True)
    return True


def remove(state: DeviceState, key: str, way: Way, relation: str, other: str) -> bool:
    """Forget a relation; False: there was none."""
    part = _part(way, relation, other)
    if state.get(key, part) is None:
        return False
    state.delete(key, part)
    return True


def names_of(value: Any) -> list[str]:
    """Return the devices that an expression named: a name, a list of names, or nothing.

    MessageError (codes `device_missing`, `device_name`): that names no device.
    """
    if value is None:
        return []
    listed: Iterable[Any] = value if isinstance(value, list) else [value]
    names = dict.fromkeys(listed) if all(isinstance(name, str) for name in listed) else None
    if names is None:
        raise MessageError("a device is named by text", code="device_name")
    for name in names:
        check_device_name(name)
    return list(names)


def _part(way: Way, relation: str, other: str) -> str:
    return f"{PREFIX}{way}/{relation}/{other}"
