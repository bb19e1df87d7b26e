"""What route keeps of a device itself: who it is, how it can be reached, its last values.

In: messages. Out: the parts `device` and `telemetry` of its state, written only when they change.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.event import DeviceMessage
from pipeline.ports import DeviceState
from pipeline.route.storable import size_of
from pipeline.route.turn import DEVICE_PART, TELEMETRY_PART

_SECRET = ("urls", "key")  # of a link: a network server's addresses hold its keys


def note(state: DeviceState, key: str, message: DeviceMessage) -> None:
    """Keep what a message says of its device; what it does not say stays as it was."""
    known = state.get(key, DEVICE_PART)
    link = None if message.link is None else msgspec.to_builtins(message.link)
    if known is not None and (
        known["integration"] == message.integration
        and known["kind"] == message.device_kind
        and (not message.device_type or known.get("type") == message.device_type)
        and (not message.dev_eui or known.get("dev_eui") == message.dev_eui)
        and (not message.customer or known.get("customer") == message.customer)
        and (not message.group or known.get("group") == message.group)
        and (link is None or known.get("link") == link)
    ):
        return
    said = {
        "type": message.device_type,
        "dev_eui": message.dev_eui,
        "customer": message.customer,
        "group": message.group,
        "link": link,
    }
    after = known or {"first_seen_ms": message.received_ms}
    state.put(
        key,
        DEVICE_PART,
        {
            **after,
            **{name: value for name, value in said.items() if value},
            "integration": message.integration,
            "kind": message.device_kind,
        },
    )


def note_telemetry(state: DeviceState, key: str, message: DeviceMessage, keys_max: int) -> None:
    """Keep a device's last values: of each key the newest by the messages' times.

    MessageError (code `state`): a value cannot be kept.
    """
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
        size_of(message.telemetry)
        state.put(key, TELEMETRY_PART, after)


def shown(known: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a device without its secrets."""
    link = known.get("link")
    if not link:
        return known
    return {**known, "link": {name: link[name] for name in link if name not in _SECRET}}
