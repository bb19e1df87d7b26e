"""Calls that a message waits for, in the device's state: to a service, or to the device itself.

In: how a call ended: what a sink says, news of a downlink, a later message of the device, or a
timer. Out: the message goes on at the node that called, once, or the application that called is
answered (`device_calls.py`); whatever comes later is too late and has no effect.
A call is the part `call/<id>` and a timer of that name; `calls` lists those to the
device itself, which its messages may answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.errors import MessageError
from pipeline.model.downlink import State
from pipeline.model.event import CallEnded, DeviceMessage, DownlinkReport
from pipeline.model.record import derive_id
from pipeline.route import commands, device_calls
from pipeline.route.message import Scope, time_text
from pipeline.route.node import Node, Outcome, Reply
from pipeline.route.resume import Place, resume, step_at
from pipeline.route.turn import LogLine, Turn
from pipeline.route.visit import CALL_PREFIX, CALLS_PART, TIMER_PREFIX, Until, Visit

_ENDS_BADLY = frozenset({State.FAILED, State.EXPIRED, State.SUPERSEDED, State.CANCELLED})
_LEFT = frozenset({State.SENT, State.ACCEPTED, State.ACKNOWLEDGED})
_TYPES = frozenset({"uplink", "status", "location", "service_data"})  # what may be a reply


def call_ended(turn: Turn, event: CallEnded) -> None:
    """Let the message go on that waits for this call."""
    detail = {"detail": event.detail} if event.detail else {}
    answer = event.answer if event.answer is not None or not detail else detail
    _end(turn, event.call, Reply(event.how, answer, event.reason, event.message), event.time_ms)


def timed_out(turn: Turn, name: str, due_ms: int) -> None:
    """Let the message go on whose call (by its timer's name) has had no reply in time."""
    message = "there was no reply in time"
    _end(turn, name.removeprefix(CALL_PREFIX), Reply("timeout", None, "timeout", message), due_ms)


def heard(turn: Turn, event: DeviceMessage) -> None:
    """Let a message of the device be the reply to the first of its open calls that takes it."""
    open_calls = turn.state.get(turn.key, CALLS_PART)
    if not open_calls or event.type not in _TYPES:
        return
    for call in open_calls:
        part = turn.state.get(turn.key, CALL_PREFIX + call)
        if part is not None and _takes(turn, part, event):
            answer = {
                "id": event.id,
                "time": time_text(event.time_ms),
                "f_port": event.f_port,
                "telemetry": event.telemetry,
            }
            _end(turn, call, Reply("replied", answer), min(event.time_ms, event.received_ms))
            break
    if event.window is not None and event.window.carries:
        _offer(turn, open_calls)


def _offer(turn: Turn, open_calls: list[str]) -> None:
    """Note that calls may have left in the answer to this message: the next one may reply."""
    for call in open_calls:
        part = turn.state.get(turn.key, CALL_PREFIX + call)
        if part is not None and not part.get("offered"):
            turn.state.put(turn.key, CALL_PREFIX + call, {**part, "offered": True})


def report(turn: Turn, event: DownlinkReport) -> None:
    """Hand on news of a downlink, and let it end the call that the downlink was for."""
    commands.pass_on(turn, event)
    open_calls = turn.state.get(turn.key, CALLS_PART)
    if not open_calls:
        return
    report = event.report
    # Who cannot name the downlink means the last one that was sent.
    call = report.downlink_id or open_calls[-1]
    part = turn.state.get(turn.key, CALL_PREFIX + call)
    if part is None:
        return
    answer = {"state": report.state.value, "reason": report.reason}
    until: Until = part["data"]["until"]
    not_acknowledged = report.state is State.NOT_ACKNOWLEDGED and until == "acknowledged"
    if report.state in _ENDS_BADLY or not_acknowledged:
        reason = report.reason or report.state.value
        message = f"the downlink is {report.state.value}"
        _end(turn, call, Reply("failed", answer, reason, message), event.time_ms)
    elif (until == "sent" and report.state in _LEFT) or (
        until == "acknowledged" and report.state is State.ACKNOWLEDGED
    ):
        _end(turn, call, Reply("replied", answer), event.time_ms)


def _takes(turn: Turn, part: dict[str, Any], event: DeviceMessage) -> bool:
    """Return whether who called takes a message for the reply; never the one that asked, nor what
    came with it in one request, nor one in whose answer the downlink is yet to leave.
    """
    if part["trace"] == turn.trace or part["data"]["until"] != "reply":
        return False
    if event.window is not None and not part.get("offered"):
        return False
    metadata = {**event.metadata, "call": part["data"]["call"]}
    scope = Scope(msgspec.structs.replace(event, metadata=metadata), turn)
    try:
        if device_calls.is_ours(part):
            return device_calls.hears(part, scope)
        step = step_at(turn, Place(part["chain"], part["node"], part["rules"]))
        return step is not None and step.node.hears(scope)
    except MessageError:
        return False  # what has not the fields that the reply has is no reply


def _end(turn: Turn, call: str, reply: Reply, time_ms: int) -> None:
    state, key = turn.state, turn.key
    part = state.get(key, CALL_PREFIX + call)
    if part is None:
        turn.work.lines.append(_too_late(turn, call, reply))
        return
    state.delete(key, CALL_PREFIX + call)
    state.delete(key, TIMER_PREFIX + CALL_PREFIX + call)
    state.cancel_timer(key, CALL_PREFIX + call)
    open_calls = state.get(key, CALLS_PART)
    if open_calls and call in open_calls:
        state.put(key, CALLS_PART, [each for each in open_calls if each != call] or None)
    reply = reply._replace(data=part["data"])
    if device_calls.is_ours(part):
        device_calls.end(turn, call, part, reply)
        return

    def apply(node: Node, visit: Visit) -> Outcome:
        return node.apply_reply(visit, reply)

    resume(
        turn,
        Place(part["chain"], part["node"], part["rules"]),
        msgspec.convert(part["message"], DeviceMessage),
        apply,
        tag=derive_id("c", call)[-24:],
        time_ms=min(time_ms, turn.now_ms),
    )


def _too_late(turn: Turn, call: str, reply: Reply) -> LogLine:
    return LogLine(
        level="debug",
        message=f"the end of a call came too late: {reply.how}",
        tenant=turn.tenant,
        device=turn.device,
        chain="",
        node="",
        event_id=call,
    )
