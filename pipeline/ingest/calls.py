"""Calls to a device: `POST …/calls` in, its owner asked, how the call ended out.

In: a downlink as of `POST …/downlinks`, and `until`, `timeout`, `reply`, `number_field`,
`persistent`. Out: 200 with the reply; 202 where nobody waits for one, or the call goes on without
the one who asked; 504 where there was none in time; 4xx and 5xx where the downlink cannot be made
or failed. The owner answers in two parts: `route/device_calls.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline.errors import MessageError
from pipeline.model.event import CallEnded, DeviceCall, DownlinkCommand
from pipeline.model.http import Response
from pipeline.model.record import derive_id
from pipeline.model.reply import Reply
from pipeline.rulebook.duration import parse_duration

from .commands import DownlinkBody, Target, downlink_command, read_body
from .idempotency import idempotency_of
from .owner import Origin, Owners
from .problem import JSON, problem

TIMEOUT_S = 10.0
REPLY_LENGTH_MAX = 1_000

_encode = msgspec.json.Encoder().encode


class CallBody(DownlinkBody, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST …/calls`. `until: queued` is a call that nobody waits for."""

    until: Literal["reply", "sent", "acknowledged", "queued"] = "reply"
    timeout: str = ""
    reply: Annotated[str, Meta(max_length=REPLY_LENGTH_MAX)] = ""
    number_field: Annotated[str, Meta(max_length=128)] = ""
    persistent: bool = False


class Calls:
    """Calls of applications. `timeout_max_s` bounds how long one may wait."""

    def __init__(self, owners: Owners, timeout_max_s: float) -> None:
        self._owners = owners
        self._timeout_max_s = timeout_max_s

    async def make(self, target: Target, body: bytes, by: str, idempotency_key: str) -> Response:
        """Return how the call ended, or stands when its time is up. MessageError: what is wrong
        with the body.
        """
        asked = read_body(body, CallBody)
        _check(asked)
        origin = self._owners.origin(by)
        place = f"{target.tenant}/{target.device}/calls"
        idempotency = idempotency_of(idempotency_key, "POST", place, body)
        command = msgspec.structs.replace(
            downlink_command(target, asked, origin), idempotency=idempotency
        )
        if asked.until == "queued":
            reply = await self._owners.ask(command)
            return reply if isinstance(reply, Response) else _said(reply)
        timeout_s = self._timeout_s(asked.timeout)
        event = _event(asked, command, origin, timeout_s)
        replies = await self._owners.ask_parts(event, timeout_s)
        if isinstance(replies, Response):
            return replies
        last = replies[-1] if replies else None
        if last is None:
            return _silent(event, timeout_s)
        if last.part == 1 and last.of > 1:
            return _late(event, last, timeout_s)
        if isinstance(last.body, dict) and last.body.get("state") == "failed":
            return await self._no_downlink(event, last)
        return _said(last)

    def _timeout_s(self, text: str) -> float:
        if not text:
            return min(TIMEOUT_S, self._timeout_max_s)
        try:
            timeout_s = parse_duration(text)
        except ValueError as error:
            raise MessageError(f"timeout {error}", code="timeout", field="timeout") from None
        if not 0 < timeout_s <= self._timeout_max_s:
            raise MessageError(
                f"timeout is from 1ms to {self._timeout_max_s:g} s; for longer ones say"
                " `persistent: true`, and ask for the call by its id",
                code="timeout",
                field="timeout",
            )
        return timeout_s

    async def _no_downlink(self, event: DeviceCall, reply: Reply) -> Response:
        """Tell that the downlink could not be made, here and to the call's owner."""
        failed: Mapping[str, Any] = reply.body
        reason = failed.get("reason") or "failed"
        message = failed.get("detail", {}).get("message") or reason
        ended = CallEnded(
            id=derive_id(event.id, "no-downlink"),
            tenant=event.tenant,
            device=event.device,
            time_ms=event.time_ms,
            call=failed["id"],
            how="failed",
            reason=reason,
            message=message,
            detail={"status": reply.status},
        )
        await self._owners.tell(ended, cause=event.id)
        return problem(reply.status, reason, message, id=failed["id"])


def _check(asked: CallBody) -> None:
    if asked.number_field and asked.fields is None:
        raise MessageError(
            "number_field needs fields, which it is put into", code="call", field="number_field"
        )
    if asked.until != "reply" and (asked.reply or asked.number_field):
        raise MessageError(
            "reply and number_field say which message is the reply; then until is `reply`",
            code="call",
            field="until",
        )
    if asked.until == "queued" and (asked.timeout or asked.persistent):
        raise MessageError(
            "nobody waits for a call until it is queued; leave timeout and persistent out",
            code="call",
            field="until",
        )


def _event(
    asked: CallBody, command: DownlinkCommand, origin: Origin, timeout_s: float
) -> DeviceCall:
    assert asked.until != "queued", "nobody waits for that"
    return DeviceCall(
        id=command.id,
        tenant=command.tenant,
        device=command.device,
        time_ms=command.time_ms,
        request=command.request,
        timeout_ms=round(timeout_s * 1_000),
        until=asked.until,
        reply=asked.reply,
        number_field=asked.number_field,
        persistent=asked.persistent,
        integration=command.integration,
        idempotency=command.idempotency,
        by=origin.by,
    )


def _late(event: DeviceCall, first: Reply, timeout_s: float) -> Response:
    call_id = first.body.get("id", "") if isinstance(first.body, dict) else ""
    if event.persistent:
        return Response(202, _encode({"id": call_id, "state": "waiting"}), JSON)
    return problem(504, "timeout", f"there was no reply within {timeout_s:g} s", id=call_id)


def _silent(event: DeviceCall, timeout_s: float) -> Response:
    again = "; ask again with the same key" if event.idempotency else ": do not send it again"
    said = (
        f"the owner of the device did not answer within {timeout_s:g} s; the call is stored and"
        f" will be made, unless its time is over{again}"
    )
    return problem(504, "owner_timeout", said, id=event.id)


def _said(reply: Reply) -> Response:
    return Response(reply.status, b"{}" if reply.body is None else _encode(reply.body), JSON)
