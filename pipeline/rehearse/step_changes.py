"""What one node changed: the message, the device's attributes, alarms and timers, what it asked
for. In: the turn before the node, and after it. Out: a list of `Change`, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.model.delivery import Delivery
from pipeline.model.event import DeviceMessage, DownlinkWork, RequestedDownlink
from pipeline.model.record import EVENT_ID, Outgoing, split_key
from pipeline.rehearse.result import path_text
from pipeline.route.message import time_text
from pipeline.route.turn import Turn
from pipeline.topics import DEVICE_EVENTS, DOWNLINK_REQUESTED, topic_of

_ATTRIBUTES = "attributes/"
_ALARMS = "alarms/"
_TIMER_ENTRY = "timer/"
_MEMORY = "node/"
_FIELDS = ("type", "device", "device_type", "time_ms", "telemetry", "attributes", "metadata")

_decode_work = msgspec.json.Decoder(DownlinkWork).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a node changed or asked for.

    `what`: `message` (a field of it: `name` is its path), `attribute` (`shared.target`), `alarm`,
    `memory` (what the node keeps of the device), `timer`, `state`; with `before` and `after`, one
    of them left out where nothing was or is there. Or what is asked for, in `after`: `downlink`
    (`name` is its id), `delivery` (its sink), `event` (the device that is told), `record` (any
    other topic), `log` (its level).
    """

    what: str
    name: str
    before: Any = None
    after: Any = None


class Before:
    """A turn as it stands now."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.parts = dict(turn.state.scan(turn.key))
        self.timers = dict(turn.state.timer_changes)
        self.out = len(turn.work.out)
        self.lines = len(turn.work.lines)


def changes_since(
    before: Before, message: DeviceMessage, made: Sequence[DeviceMessage], *, effects: bool
) -> list[Change]:
    """Return what changed. `made` are the messages that left in place of `message`; `effects`:
    also what else the turn has by now.
    """
    found = []
    for number, one in enumerate(made, 1):
        prefix = f"{number}: " if len(made) > 1 else ""
        found += [
            Change("message", f"{prefix}{path}", was, now)
            for path, was, now in _message_changes(message, one)
        ]
    if effects:
        found += _state_changes(before)
        found += _timer_changes(before)
        turn = before.turn
        found += [_asked(record) for record in turn.work.out[before.out :]]
        found += [
            Change("log", line.level, after=line.message)
            for line in turn.work.lines[before.lines :]
        ]
    return found


def leaves(
    before: Any, after: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs between two JSON values: path, value before, value after; of maps key by
    key, of lists whole. None: it is not there.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from leaves(before.get(key), after.get(key), (*path, key))
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):
        yield path_text(path), before, after


def _message_changes(before: DeviceMessage, after: DeviceMessage) -> Iterator[tuple[str, Any, Any]]:
    if before is after:
        return
    for name in _FIELDS:
        yield from leaves(getattr(before, name), getattr(after, name), (name,))


def _state_changes(before: Before) -> Iterator[Change]:
    turn = before.turn
    after = dict(turn.state.scan(turn.key))
    for part in sorted({*before.parts, *after}):
        was, now = before.parts.get(part), after.get(part)
        if was is now or part.startswith(_TIMER_ENTRY):
            continue
        if part.startswith(_ATTRIBUTES):
            scope = part.removeprefix(_ATTRIBUTES)
            for path, old, new in leaves(_values(was), _values(now), (scope,)):
                yield Change("attribute", path, old, new)
        elif was != now:
            kind, name = _kind(part)
            yield Change(kind, name, was, now)


def _values(part: Mapping[str, Any] | None) -> Any:
    return part["values"] if part else {}


def _kind(part: str) -> tuple[str, str]:
    for prefix, kind in ((_ALARMS, "alarm"), (_MEMORY, "memory")):
        if part.startswith(prefix):
            return kind, part.removeprefix(prefix)
    return "state", part


def _timer_changes(before: Before) -> Iterator[Change]:
    turn = before.turn
    for (key, name), now in turn.state.timer_changes.items():
        was = before.timers.get((key, name))
        if key == turn.key and now is not was:
            shown = name.removeprefix(_MEMORY)
            yield Change("timer", shown, _due(was), _due(now) or "cancelled")


def _due(timer: tuple[int, Any] | None) -> str | None:
    return None if timer is None else time_text(timer[0])


def _asked(record: Outgoing) -> Change:
    if record.topic == DOWNLINK_REQUESTED:
        work = _decode_work(record.value or b"")
        if isinstance(work, RequestedDownlink):
            asked = msgspec.to_builtins(work.request)
            if work.request.payload is not None:
                asked["payload"] = work.request.payload.hex(" ")
            return Change("downlink", work.id, after=asked)
    elif record.topic == DEVICE_EVENTS:
        told = msgspec.json.decode(record.value or b"{}")
        told.pop("link", None)
        return Change("event", split_key(record.key)[1], after=told)
    elif topic_of(record.topic).readers == ("sink",):
        delivery = _decode_delivery(record.value or b"")
        return Change("delivery", delivery.destination, after=delivery.body)
    return Change("record", record.topic, after=record.headers.get(EVENT_ID, ""))
