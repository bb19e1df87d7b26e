"""What is not a message of a device: changes of attributes, questions, downlinks asked for by
applications, news of downlinks, forgetting.

In: events of `device.events`. Out: answers on `reply`; work on `downlink.requested`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from pipeline.errors import MessageError
from pipeline.model.event import (
    AttributesChange,
    Cancel,
    DownlinkCommand,
    DownlinkReport,
    DownlinksCommand,
    Forget,
    Query,
    ReplyWindow,
    RequestedDownlink,
    RequestedDownlinks,
    Window,
    WindowOpened,
)
from pipeline.model.record import REPLY_TO, derive_id
from pipeline.model.uplink import Link
from pipeline.route import attributes, device, device_calls
from pipeline.route.attributes import values_of
from pipeline.route.turn import Pending, Turn
from pipeline.route.visit import TIMER_PREFIX

_ANSWER = "route-answer"


class _Way(NamedTuple):
    """How an application's downlinks reach a device."""

    integration: str
    link: Link | None
    """None: not known; there was no uplink yet."""
    device_type: str


def change_attributes(turn: Turn, event: AttributesChange) -> None:
    """Set and delete attributes, and answer with the scope as it is then.

    Chains are told of a change afterwards (`turn.pending`).
    """
    # A clock that is ahead must not lock values; the log's own may be ahead of this worker's.
    time_ms = min(event.time_ms, max(turn.record.time_ms, turn.now_ms))
    try:
        change = attributes.change(
            turn.state,
            turn.key,
            event.scope,
            event.set,
            delete=event.delete,
            time_ms=time_ms,
            bytes_max=turn.work.limits.attributes_bytes_max,
        )
    except MessageError as fault:
        if not turn.refuse(derive_id(event.id, _ANSWER), 413, fault.code, fault.message):
            turn.bury(fault, tag="attributes")
        return
    if change is not None:
        turn.pending.append(Pending(event.id, "attributes", time_ms, change, event.by))
    turn.reply(derive_id(event.id, _ANSWER), 200, values_of(turn.state, turn.key, event.scope))


def answer(turn: Turn, event: Query) -> None:
    """Answer a question about the device, or hand it on to the owner of its downlinks."""
    if event.what in ("downlinks", "downlink"):
        _pass_on_with_link(turn, event)
        return
    if event.what in ("calls", "call"):
        device_calls.show(turn, event)
        return
    reply_id = derive_id(event.id, _ANSWER)
    known, values = turn.known(), turn.attributes()
    if not known and not any(values.values()):
        turn.refuse(reply_id, 404, "device_unknown", _unknown(turn))
    elif event.what == "attributes":
        turn.reply(reply_id, 200, values[event.scope] if event.scope else values)
    else:
        body: dict[str, Any] = {"tenant": turn.tenant, "device": turn.device}
        turn.reply(reply_id, 200, {**body, **device.shown(known), "attributes": values})


def command(turn: Turn, event: DownlinkCommand) -> None:
    """Hand an application's downlink on, with the way to the device.

    It goes by the integration that the command names, else by that of the device's last message.
    A device that was never heard can only be reached where the command names its integration.
    """
    way = _way(turn, event)
    if way is None:
        return
    wanted = RequestedDownlink(
        id=derive_id(event.id, "downlink"),
        tenant=event.tenant,
        device=event.device,
        integration=way.integration,
        time_ms=event.time_ms,
        request=event.request,
        device_type=way.device_type,
        link=way.link,
        idempotency=event.idempotency,
    )
    turn.request(wanted.id, wanted, turn.record.headers.get(REPLY_TO, ""))


def _way(turn: Turn, event: DownlinkCommand | DownlinksCommand, fallback: str = "") -> _Way | None:
    """Return the way of a command's downlinks; None: there is none, which was said."""
    known = turn.known()
    integration = event.integration or known.get("integration") or fallback
    if not integration:
        if not turn.refuse(derive_id(event.id, _ANSWER), 404, "device_unknown", _unknown(turn)):
            turn.bury(MessageError(_unknown(turn), code="device_unknown"), tag="downlink")
        return None
    link = known.get("link") if integration == known.get("integration") else None
    return _Way(integration, msgspec.convert(link, Link) if link else None, known.get("type", ""))


def several(turn: Turn, event: DownlinksCommand) -> None:
    """Hand an application's downlinks on, as `command` does; a device that was never heard is
    reached by the command's `fallback` and `link`.
    """
    way = _way(turn, event, event.fallback)
    if way is None:
        return
    wanted = RequestedDownlinks(
        id=derive_id(event.id, "downlinks"),
        tenant=event.tenant,
        device=event.device,
        integration=way.integration,
        time_ms=event.time_ms,
        requests=event.requests,
        replace=event.replace,
        device_type=way.device_type,
        link=way.link or event.link,
        idempotency=event.idempotency,
        by=event.by,
    )
    turn.request(wanted.id, wanted, turn.record.headers.get(REPLY_TO, ""))


def open_window(turn: Turn, event: WindowOpened) -> None:
    """Tell the owner of the device's downlinks of a way to it, which no message came by."""
    window = ReplyWindow(
        id=derive_id(event.id, "window"),
        tenant=event.tenant,
        device=event.device,
        integration=event.integration,
        time_ms=event.time_ms,
        window=Window(key=event.id),
    )
    turn.request(window.id, window, turn.record.headers.get(REPLY_TO, ""))


def pass_on(turn: Turn, event: DownlinkReport) -> None:
    """Hand on what only the owner of downlinks can do."""
    turn.pass_on(event.id)


def cancel(turn: Turn, event: Cancel) -> None:
    """Hand on what is to be taken back, with the way to the network server where it is asked
    for.
    """
    _pass_on_with_link(turn, event)


def _pass_on_with_link(turn: Turn, event: Query | Cancel) -> None:
    known = turn.known()
    integration, link = known.get("integration"), known.get("link")
    if not event.network_server or not integration or not link:
        turn.pass_on(event.id)
        return
    told = msgspec.structs.replace(event, integration=integration, link=msgspec.convert(link, Link))
    turn.request(event.id, told, turn.record.headers.get(REPLY_TO, ""))


def forget(turn: Turn, event: Forget) -> None:
    """Remove all that is kept of the device, its timers too; the rest is the downlink stage's."""
    state, key = turn.state, turn.key
    for part, _ in list(state.scan(key)):
        if part.startswith(TIMER_PREFIX):
            state.cancel_timer(key, part[len(TIMER_PREFIX) :])
        state.delete(key, part)
    turn.pass_on(event.id)


def _unknown(turn: Turn) -> str:
    return f"there is no device `{turn.device}`"
