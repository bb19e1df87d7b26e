"""What route keeps of a device itself: who it is, how it can be reached, its last values.

In: messages. Out: the parts `device` and `telemetry` of its state, written only when they change.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.event import DeviceMessage
from pipeline.ports import DeviceState
from pipeline.route.turn import DEVICE_PART, TELEMETRY_PART

_SECRET = ("urls", "key")  # of a link: a network server's addresses hold its keys


def note(state: DeviceState, key: str, message: DeviceMessage) -> None:
    """Keep what a message says of its device; what it does not say stays as it was."""
    known = state.get(key, DEVICE_PART)
    said: dict[str, Any] = {"integration": message.integration}
    if message.device_type:
        said["type"] = message.device_type
    if message.dev_eui:
        said["dev_eui"] = message.dev_eui
    if message.customer:
        said["customer"] = message.customer
    if message.group:
        said["group"] = message.group
    if message.link is not None:
        said["link"] = msgspec.to_builtins(message.link)
    if known is None:
        first = {"kind": message.device_kind, "first_seen_ms": message.received_ms}
        state.put(key, DEVICE_PART, {**said, **first})
        return
    said["kind"] = message.device_kind
    for name, value in said.items():
        if known.get(name) != value:
            state.put(key, DEVICE_PART, {**known, **said})
            return


def note_telemetry(state: DeviceState, key: str, message: DeviceMessage, keys_max: int) -> None:
    """Keep a device's last values: of each key the newest by the messages' times."""
    part = state.get(key, TELEMETRY_PART)
    if part is None:
        after = {"time_ms": message.time_ms, "values": message.telemetry}
    elif message.time_ms >= part["time_ms"]:
        values = {**part["values"], **message.telemetry}
        if len(values) > keys_max:
            values = message.telemetry
        after = {"time_ms": message.time_ms, "values": values}
    else:
        values = {**message.telemetry, **part["values"]}
        if len(values) > keys_max:
            return
        after = {"time_ms": part["time_ms"], "values": values}
    if after != part:
        state.put(key, TELEMETRY_PART, after)


def shown(known: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a device without its secrets."""
    link = known.get("link")
    if not link:
        return known
    return {**known, "link": {name: link[name] for name in link if name not in _SECRET}}
