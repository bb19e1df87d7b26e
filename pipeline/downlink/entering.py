"""What is asked for → a device's queue: each downlink goes as far as it gets at once.

In: requests of rules and applications, with their bytes or why there are none. Out: the life's
first moves, deliveries on asynchronous links, and the answer for who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.downlink.encode import Encoded
from pipeline.downlink.handover import clear, send_next
from pipeline.downlink.idempotency import Answers
from pipeline.downlink.outputs import Outputs
from pipeline.downlink.queue import DeviceQueue
from pipeline.errors import MessageError
from pipeline.model.downlink import Downlink, DownlinkRequest, State
from pipeline.model.event import Idempotency, RequestedDownlink, RequestedDownlinks
from pipeline.model.reply import Reply
from pipeline.rulebook.book import Integration

Result = Encoded | MessageError
_TOGETHER = "rejected_together"


class Entering:
    """Of one device, for one record."""

    def __init__(
        self,
        queue: DeviceQueue,
        answers: Answers,
        out: Outputs,
        integration: Integration | None,
        *,
        now_ms: int,
        trace: str,
    ) -> None:
        self._queue = queue
        self._answers = answers
        self._out = out
        self._integration = integration
        self._now_ms = now_ms
        self._trace = trace

    def one(self, work: RequestedDownlink, encoded: Result) -> Reply:
        """Enter one downlink; return 202 with it, or 422 with the one that failed."""
        return self._once(work.idempotency, lambda: self._one(work, encoded))

    def several(self, work: RequestedDownlinks, encoded: Sequence[Result]) -> Reply:
        """Enter all of them or none; return 200 with them, or an error with what is wrong.

        None were entered: each is kept as failed, one with the reason, the others as rejected
        with it.
        """
        return self._once(work.idempotency, lambda: self._several(work, encoded))

    def _once(self, asked: Idempotency | None, enter: Callable[[], Reply]) -> Reply:
        if asked is None:
            return enter()
        earlier = self._answers.earlier(asked)
        if earlier is not None:
            return earlier
        reply = enter()
        self._answers.keep(asked, reply)
        return reply

    def _one(self, work: RequestedDownlink, encoded: Result) -> Reply:
        known = self._queue.get(work.id)
        if known is None:
            if work.link is not None:
                self._queue.set_link(work.integration, work.link)
            downlink = self._begin(work, work.request.queue)
            ready = self._ready(downlink, encoded)
            if isinstance(ready, MessageError):
                known = self._fail(downlink, ready)
            else:
                known = self._handed_over(self._enter(ready))
        status = 422 if known.state is State.FAILED else 202
        return Reply("", status=status, body=msgspec.to_builtins(known))

    def _several(self, work: RequestedDownlinks, encoded: Sequence[Result]) -> Reply:
        queue, integration = self._queue, self._integration
        if work.link is not None:
            queue.set_link(work.integration, work.link)
        if not work.requests:
            return self._empty(work)
        downlinks = [
            self._begin(each, "replace" if work.replace and not place else each.request.queue)
            for place, each in enumerate(work.each())
        ]
        ready: list[Downlink] = []
        for place, (downlink, result) in enumerate(zip(downlinks, encoded, strict=True)):
            found = self._ready(downlink, result)
            if isinstance(found, MessageError):
                return self._refused(downlinks, place, found)
            ready.append(found)
        waiting = 0 if work.replace else queue.length
        if integration is not None and waiting + len(ready) > integration.queue_max:
            text = (
                f"{waiting} wait and {len(ready)} more are too many: at most"
                f" {integration.queue_max} wait for a device (`queue_max` of the integration)"
            )
            fault = MessageError(text, code="queue_full", limit=integration.queue_max)
            return self._refused(downlinks, 0, fault)
        entered = [self._enter(downlink) for downlink in ready]
        self._handed_over(entered[0])
        now = [queue.get(one.id) or one for one in entered]
        return Reply("", status=200, body={"downlinks": [msgspec.to_builtins(one) for one in now]})

    def _refused(self, downlinks: Sequence[Downlink], place: int, fault: MessageError) -> Reply:
        for number, downlink in enumerate(downlinks):
            if number == place:
                self._fail(downlink, fault)
            else:
                detail = {"message": f"downlink {place} of the same request: {fault.message}"}
                self._queue.move(downlink, State.FAILED, reason=_TOGETHER, detail=detail)
        error = {"code": fault.code, "message": fault.message, "index": place, **fault.detail}
        ids = [downlink.id for downlink in downlinks]
        return Reply("", status=422, body={"error": error, "ids": ids})

    def _empty(self, work: RequestedDownlinks) -> Reply:
        """Do what `replace` with nothing means: all that waits goes, here and over there."""
        taken = []
        if work.replace:
            taken = [
                self._queue.move(one, State.CANCELLED, reason="replaced", by=work.by).id
                for one in self._queue.waiting()
            ]
            if self._integration is not None and not self._integration.synchronous:
                link = self._queue.link(self._integration.name)
                clear(self._out, self._integration, work.device, link, work.id, self._now_ms)
        return Reply("", status=200, body={"downlinks": [], "cancelled": taken})

    def _begin(self, work: RequestedDownlink, mode: Any) -> Downlink:
        request: DownlinkRequest = work.request
        integration = self._integration
        waits = integration is not None and integration.synchronous and not integration.stays_open
        downlink = Downlink(
            id=work.id,
            tenant=work.tenant,
            device=work.device,
            integration=work.integration,
            state=State.REQUESTED,
            requested_ms=work.time_ms,
            changed_ms=self._now_ms,
            trace_id=self._trace,
            payload=request.payload,
            fields=request.fields,
            f_port=request.f_port,
            confirmed=request.confirmed,
            queue=mode or ("replace" if waits else "last"),
            priority=request.priority,
            expires_at_ms=request.expires_at_ms,
            supersede_key=request.supersede_key,
            source=request.source,
            correlation_ids=request.correlation_ids,
        )
        self._queue.begin(downlink)
        return downlink

    def _ready(self, downlink: Downlink, encoded: Result) -> Downlink | MessageError:
        """Return a downlink with its bytes, or why it cannot go: there are none, or its network
        server does not take them.
        """
        if isinstance(encoded, MessageError):
            return encoded
        if self._integration is None:
            return MessageError(
                f"there is no integration `{downlink.integration}`", code="no_integration"
            )
        try:
            return _with_bytes(downlink, encoded, self._integration)
        except MessageError as fault:
            return fault

    def _fail(self, downlink: Downlink, fault: MessageError) -> Downlink:
        detail = {"message": fault.message, **fault.detail}
        return self._queue.move(downlink, State.FAILED, reason=fault.code, detail=detail)

    def _enter(self, downlink: Downlink) -> Downlink:
        """Bring one that is ready as far as it gets: queued, or ended."""
        assert self._integration is not None, "without an integration none is ready"
        downlink = self._queue.move(downlink, State.ENCODED)
        if downlink.expires_at_ms is not None and downlink.expires_at_ms <= self._now_ms:
            return self._queue.move(downlink, State.EXPIRED)
        return self._queue.add(downlink, waiting_max=self._integration.queue_max)

    def _handed_over(self, downlink: Downlink) -> Downlink:
        """Return the downlink as it is when the next one is on its way."""
        if self._integration is not None:
            send_next(self._out, self._queue, self._integration, self._now_ms)
        return self._queue.get(downlink.id) or downlink


def _with_bytes(downlink: Downlink, encoded: Encoded, integration: Integration) -> Downlink:
    dialect = integration.dialect
    f_port = encoded.f_port if dialect.has_f_port else downlink.f_port
    if f_port is None and dialect.has_f_port:
        f_port = 1  # The Things Stack's own default where the encoder names none
    detail = {"warnings": list(encoded.warnings)} if encoded.warnings else {}
    changed = msgspec.structs.replace(
        downlink,
        payload=encoded.payload,
        fields=encoded.fields if downlink.fields is None else downlink.fields,
        f_port=f_port,
        detail=detail,
    )
    if encoded.payload is None and not dialect.takes_fields:
        raise MessageError(
            f"there are fields and no bytes: the converter of `{integration.name}` has no"
            " downlinkEncoder; write one, or give the payload",
            code="no_encoder",
        )
    dialect.check(changed)
    return changed
