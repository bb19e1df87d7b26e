"""Calls of applications to a device: a downlink asked for, and its reply told to who waits.

In: `DeviceCall` and questions for calls; how a call ended, from `waits.py`. Out: the downlink on
`downlink.requested`, answers on `reply`. An open call is the part `call/<downlink's id>`, as a
chain's is; one that ended is `called/<ms>/<id>`, so that it can be asked for, and so that a second
request with its idempotency key gets the same answer.

The answer has two parts: the first one tells of the downlink (by the downlink stage, or here where
the call is known already), the second one of the reply. Whoever waits gives up by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from pipeline.errors import MessageError
from pipeline.expression import Expression, ExpressionFault, Limits, compile_expression
from pipeline.model.event import DeviceCall, Idempotency, Query, RequestedDownlink
from pipeline.model.record import REPLY_TO, derive_id
from pipeline.model.reply import Reply as Answer
from pipeline.model.reply import read_reply_to
from pipeline.model.uplink import Link
from pipeline.route.fields import NAMES
from pipeline.route.node import Reply
from pipeline.route.storable import size_of
from pipeline.route.turn import Turn
from pipeline.route.visit import CALL_PREFIX, CALLS_PART, TIMER_PREFIX
from pipeline.topics import REPLY

ENDED_PREFIX = "called/"
_NUMBER_PART = "call_number"
_NUMBERS = 255  # as of `call_device`: the number fits a byte of the payload
_ANSWER = "route-answer"
_FAILED_STATUS = 502
# Who may ask for downlinks is less trusted than who writes rules, and each uplink is tried.
_SMALL = Limits(source_chars_max=1_000, nesting_max=16, steps_max=10_000, size_max=65_536)


def call(turn: Turn, event: DeviceCall) -> None:
    """Begin a call, or let who asks wait for the one that has the same idempotency key."""
    fault = _fault(turn, event)
    if fault is not None:
        status, code, message = fault
        if not turn.refuse(derive_id(event.id, _ANSWER), status, code, message):
            turn.bury(MessageError(message, code=code), tag="call")
        return
    if event.idempotency is not None and _joined(turn, event, event.idempotency):
        return
    number = (turn.state.get(turn.key, _NUMBER_PART) or 0) % _NUMBERS + 1
    turn.state.put(turn.key, _NUMBER_PART, number)
    wanted = _downlink(turn, event, number)
    reply_to = turn.record.headers.get(REPLY_TO, "")
    kept = {
        "application": {
            "asked_ms": event.time_ms,
            "by": event.by,
            "persistent": event.persistent,
            "reply": event.reply,
        },
        "data": {"until": event.until, "call": {"number": number}},
        "trace": turn.trace,
        "waiters": [reply_to] if reply_to else [],
        "idempotency": msgspec.to_builtins(event.idempotency),
    }
    state, name = turn.state, CALL_PREFIX + wanted.id
    until_ms = event.time_ms + event.timeout_ms
    if event.persistent:
        lasting_ms = event.time_ms + turn.work.limits.call_open_ms
        until_ms = max(until_ms, event.request.expires_at_ms or lasting_ms)
    due_ms = max(until_ms, turn.now_ms + 1)
    state.put(turn.key, name, kept)
    state.put(turn.key, CALLS_PART, [*(state.get(turn.key, CALLS_PART) or ()), wanted.id])
    state.set_timer(turn.key, name, due_ms, {"trace": turn.trace})
    state.put(turn.key, TIMER_PREFIX + name, due_ms)
    turn.request(wanted.id, wanted, reply_to)


def is_ours(part: Mapping[str, Any]) -> bool:
    """Return whether an open call is an application's, not a chain's."""
    return "application" in part


def hears(part: Mapping[str, Any], scope: Mapping[str, Any]) -> bool:
    """Return whether a later message is the reply. MessageError: it has not what a reply has."""
    text = part["application"]["reply"]
    return not text or _condition(text).test(scope)


def end(turn: Turn, call_id: str, part: Mapping[str, Any], reply: Reply) -> None:
    """Tell all who wait how a call ended, and keep it."""
    limits = turn.work.limits
    said = _ended(call_id, part, reply, turn.now_ms)
    for place, reply_to in enumerate(part["waiters"]):
        event_id = derive_id(call_id, f"ended{place}")
        _answer(turn, reply_to, event_id, said)
    kept = {**said, "idempotency": part["idempotency"]}
    try:
        fits = size_of(kept) <= limits.call_answer_bytes_max
    except MessageError:
        fits = False  # the device sent what no engine's state can keep
    if not fits:
        kept["reply"] = None
        kept["reply_left_out"] = True
    ended = [name for name, _ in turn.state.scan(turn.key, ENDED_PREFIX)]
    oldest = f"{ENDED_PREFIX}{turn.now_ms - limits.calls_kept_ms:013d}"
    surplus = len(ended) + 1 - limits.calls_kept_max
    for place, name in enumerate(ended):
        if place < surplus or name < oldest:
            turn.state.delete(turn.key, name)
    turn.state.put(turn.key, f"{ENDED_PREFIX}{turn.now_ms:013d}/{call_id}", kept)


def show(turn: Turn, event: Query) -> None:
    """Answer a question for one call, or for all: those that wait, then the ended, newest first."""
    known = [_shown(found) for found in _calls(turn)]
    reply_id = derive_id(event.id, _ANSWER)
    if event.what == "calls":
        turn.reply(reply_id, 200, {"calls": known})
        return
    for one in known:
        if one["id"] == event.downlink_id:
            turn.reply(reply_id, 200, one)
            return
    text = f"this device has no call `{event.downlink_id[:100]}`, or had it too long ago"
    turn.refuse(reply_id, 404, "not_found", text)


def _fault(turn: Turn, event: DeviceCall) -> tuple[int, str, str] | None:
    """Return why a call cannot begin: status, code, sentence; None: it can."""
    if event.reply:
        try:
            _condition(event.reply)
        except ExpressionFault as fault:
            return 400, "reply", f"`reply` is no condition: {fault.message}"
    if not (event.integration or turn.known().get("integration")):
        return 404, "device_unknown", f"there is no device `{turn.device}`"
    calls_max = turn.work.limits.calls_max
    if sum(1 for _ in turn.state.scan(turn.key, CALL_PREFIX)) >= calls_max:
        return 429, "calls", f"the device waits for {calls_max} calls already"
    return None


def _joined(turn: Turn, event: DeviceCall, asked: Idempotency) -> bool:
    """Answer as the first request with this key was answered, or will be; False: this is it."""
    reply_to = turn.record.headers.get(REPLY_TO, "")
    oldest_ms = turn.now_ms - turn.work.limits.calls_kept_ms
    for found in _calls(turn):
        same = found["idempotency"]
        if (
            same is None
            or same["key"] != asked.key
            or found.get("ended_ms", turn.now_ms) < oldest_ms
        ):
            continue
        reply_id = derive_id(event.id, _ANSWER)
        if same["request"] != asked.request:
            text = "the idempotency key was used for another request; take a new key for each"
            turn.refuse(reply_id, 422, "idempotency_key_reused", text)
        elif "ended_ms" in found:
            _answer(turn, reply_to, reply_id, found, part=1, of=1)
        else:
            _wait_too(turn, found["id"], reply_to)
            _answer(turn, reply_to, reply_id, found, part=1)
        return True
    return False


def _wait_too(turn: Turn, call_id: str, reply_to: str) -> None:
    part = turn.state.get(turn.key, CALL_PREFIX + call_id)
    if reply_to:
        waiters = [*part["waiters"], reply_to][-turn.work.limits.call_waiters_max :]
        turn.state.put(turn.key, CALL_PREFIX + call_id, {**part, "waiters": waiters})


def _calls(turn: Turn) -> Iterator[dict[str, Any]]:
    """Yield applications' calls as they are kept: open ones, then ended ones, newest first."""
    for name, part in turn.state.scan(turn.key, CALL_PREFIX):
        if is_ours(part):
            call_id = name.removeprefix(CALL_PREFIX)
            yield {**_begun(call_id, part), **part, "state": "waiting"}
    ended = [part for _, part in turn.state.scan(turn.key, ENDED_PREFIX)]
    yield from reversed(ended)


def _begun(call_id: str, part: Mapping[str, Any]) -> dict[str, Any]:
    asked, data = part["application"], part["data"]
    return {
        "id": call_id,
        "number": data["call"]["number"],
        "until": data["until"],
        "by": asked["by"],
        "persistent": asked["persistent"],
        "asked_ms": asked["asked_ms"],
    }


def _ended(call_id: str, part: Mapping[str, Any], reply: Reply, now_ms: int) -> dict[str, Any]:
    said = {**_begun(call_id, part), "state": reply.how, "ended_ms": now_ms}
    if reply.how == "replied":
        return {**said, "reply": reply.answer}
    detail = reply.answer.get("detail", {}) if isinstance(reply.answer, dict) else {}
    status = detail.get("status", _FAILED_STATUS)
    return {
        **said,
        "reason": reply.reason,
        "message": reply.message,
        "status": 504 if reply.how == "timeout" else status,
    }


_SHOWN = ("id", "state", "number", "until", "by", "persistent", "asked_ms", "ended_ms", "reply",
          "reply_left_out", "reason", "message")  # fmt: skip


def _shown(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in _SHOWN if name in found}


def _answer(
    turn: Turn, reply_to: str, event_id: str, found: Mapping[str, Any], **parts: int
) -> None:
    """Tell one who waits how a call stands."""
    to = read_reply_to(reply_to)
    if to is None:
        return
    status, body = 202, _shown(found)
    if found["state"] == "replied":
        status = 200
    elif found["state"] != "waiting":
        error = {"code": found["reason"], "message": found["message"], "id": found["id"]}
        status, body = found["status"], {"error": error}
    answer = Answer(
        request=to.request,
        device=turn.device,
        part=parts.get("part", 2),
        of=parts.get("of", 2),
        status=status,
        body=body,
    )
    try:
        turn.emit(REPLY, event_id, answer, to.partition, key=to.instance)
    except MessageError as fault:
        error = {"code": fault.code, "message": f"the reply cannot be told: {fault.message}"}
        short = msgspec.structs.replace(answer, status=_FAILED_STATUS, body={"error": error})
        turn.emit(REPLY, event_id, short, to.partition, key=to.instance)


def _downlink(turn: Turn, event: DeviceCall, number: int) -> RequestedDownlink:
    known = turn.known()
    request = event.request
    if event.number_field:
        fields = {**(request.fields or {}), event.number_field: number}
        request = msgspec.structs.replace(request, fields=fields)
    if request.expires_at_ms is None and not event.persistent:
        expires_at_ms = event.time_ms + event.timeout_ms
        request = msgspec.structs.replace(request, expires_at_ms=expires_at_ms)
    integration = event.integration or known["integration"]
    link = known.get("link") if integration == known.get("integration") else None
    return RequestedDownlink(
        id=derive_id(event.id, "downlink"),
        tenant=event.tenant,
        device=event.device,
        integration=integration,
        time_ms=event.time_ms,
        request=request,
        device_type=known.get("type", ""),
        link=msgspec.convert(link, Link) if link else None,
        answer_parts=2,
    )


@lru_cache(maxsize=256)
def _condition(text: str) -> Expression:
    """Return a condition over the names of rule chains. ExpressionFault: what is wrong with it."""
    expression = compile_expression(text, names=NAMES, limits=_SMALL)
    if expression.type not in ("bool", "dyn"):
        raise ExpressionFault(f"it gives a value of type {expression.type}, not true or false")
    return expression
