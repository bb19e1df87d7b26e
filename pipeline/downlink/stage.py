"""Stage `downlink`: reads `downlink.requested`, writes `downlink.status`, `delivery.…`, `reply`,
`dead.letter`.

Each device has one owner and one order here, so that a downlink is given to one request only. The
life of a downlink is
drawn in `model/downlink.py`; the queue itself is `queue.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline import topics
from pipeline.downlink.encode import Encoded, encode
from pipeline.downlink.outputs import STAGE, Outputs, reply_to_of
from pipeline.downlink.queue import DeviceQueue
from pipeline.errors import MessageError
from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import WAITING, Downlink, State
from pipeline.model.event import (
    Cancel,
    DownlinkReport,
    DownlinkWork,
    Forget,
    Query,
    ReplyWindow,
    RequestedDownlink,
)
from pipeline.model.record import (
    EVENT_ID,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    device_key,
    split_key,
)
from pipeline.model.reply import Reply
from pipeline.ports import Batch, DeviceState, DueTimer, ScriptPort
from pipeline.rulebook.book import Integration, Rulebook, Rulebooks

ANSWER_GRACE_MS = 5_000  # the door's report of an answer may take this long after the deadline

_decode_work = msgspec.json.Decoder(DownlinkWork).decode


class DownlinkStage:
    """Encodes, queues, answers and follows downlinks. See `ports.Stage`."""

    name = STAGE
    topic = topics.DOWNLINK_REQUESTED
    state_topic: str | None = topics.DOWNLINK_STATE

    def __init__(self, rulebooks: Rulebooks, scripts: ScriptPort, metrics: Registry) -> None:
        self._rulebooks = rulebooks
        self._scripts = scripts
        self._metrics = metrics

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """Return status records, deliveries, replies and dead letters of one batch."""
        books = self._rulebooks()
        step = _Step(books, state, now_ms)
        for timer in batch.timers:
            step.timer(timer)
        works: list[tuple[Record, DownlinkWork]] = []
        for record in batch.records:
            try:
                works.append((record, _decode_work(record.value or b"")))
            except msgspec.MsgspecError as fault:
                step.out.bury(record, "undecodable", str(fault), {})
        requests = [work for _, work in works if isinstance(work, RequestedDownlink)]
        encoded = iter(encode(requests, books, self._scripts) if requests else ())
        for record, work in works:
            step.work(record, work, encoded)
        for reached, count in step.out.reached.items():
            self._metrics.add("funicular_downlinks_total", count, state=reached)
        for reason, count in step.out.buried.items():
            self._metrics.add("funicular_dead_letters_total", count, stage=self.name, reason=reason)
        return step.out.records


class _Step:
    """One batch: what came of it so far."""

    def __init__(self, books: Mapping[str, Rulebook], state: DeviceState, now_ms: int) -> None:
        self._books = books
        self._state = state
        self._now_ms = now_ms
        self.out = Outputs(books, now_ms)

    def work(self, record: Record, work: DownlinkWork, encoded: Any) -> None:
        """Handle one record; one that cannot be handled leaves nothing but its dead letter."""
        mark, made = self._state.savepoint(), len(self.out.records)
        try:
            self._work(record, work, encoded)
        except MessageError as fault:
            self._state.rollback(mark)
            del self.out.records[made:]
            self.out.bury(record, fault.code, fault.message, fault.detail)
            error = {"error": {"code": fault.code, "message": fault.message}}
            self.out.reply(record, work.tenant, Reply("", status=422, body=error))

    def _work(self, record: Record, work: DownlinkWork, encoded: Any) -> None:
        moved: list[Downlink] = []
        queue = DeviceQueue(self._state, device_key(work.tenant, work.device), self._now_ms, moved)
        cause = record.headers.get(EVENT_ID) or work.id
        trace = record.headers.get(TRACE_ID, cause)
        match work:
            case RequestedDownlink():
                self._request(record, work, queue, next(encoded))
            case ReplyWindow():
                self._window(record, work, queue)
            case DownlinkReport():
                self._report(record, work, queue)
            case Query():
                self._query(record, work, queue)
            case Cancel():
                self._cancel(record, work, queue)
            case Forget():
                for downlink in queue.waiting():
                    queue.move(downlink, State.CANCELLED, reason="forgotten", by=work.by)
                body = {"forgotten": work.device}
                self.out.reply(record, work.tenant, Reply("", status=200, body=body))
        queue.close()
        self.out.tell(moved, cause, trace)
        if isinstance(work, Forget):
            queue.forget()

    def timer(self, timer: DueTimer) -> None:
        """Handle one due timer: a downlink's time ran out, or nobody said what became of an
        answer.
        """
        kind, _, downlink_id = timer.name.partition("/")
        tenant, _ = split_key(timer.key)
        moved: list[Downlink] = []
        queue = DeviceQueue(self._state, timer.key, self._now_ms, moved)
        downlink = queue.get(downlink_id)
        if downlink is None:
            return
        if kind == "expire" and downlink.state in WAITING:
            queue.move(downlink, State.EXPIRED)
        elif kind == "answer" and downlink.state is State.ANSWERING:
            integration = self._integration(tenant, downlink.integration)
            self._unanswered(queue, downlink, integration, "no_report", delivered=True)
        cause = derive_id(downlink.id, f"{kind}-{timer.due_ms}")
        queue.close()
        self.out.tell(moved, cause, downlink.trace_id or downlink.id)

    def _integration(self, tenant: str, name: str) -> Integration | None:
        book = self._books.get(tenant)
        return book.integrations.get(name) if book else None

    def _request(
        self,
        record: Record,
        work: RequestedDownlink,
        queue: DeviceQueue,
        encoded: Encoded | MessageError,
    ) -> None:
        known = queue.get(work.id)
        if known is None:
            if work.link is not None:
                queue.set_link(work.integration, work.link)
            known = self._enter(work, queue, encoded, record.headers.get(TRACE_ID, work.id))
        status = 422 if known.state is State.FAILED else 202
        self.out.reply(
            record, work.tenant, Reply("", status=status, body=msgspec.to_builtins(known))
        )

    def _enter(
        self,
        work: RequestedDownlink,
        queue: DeviceQueue,
        encoded: Encoded | MessageError,
        trace: str,
    ) -> Downlink:
        """Bring a new downlink as far as it gets: queued, on its way, or ended."""
        request = work.request
        integration = self._integration(work.tenant, work.integration)
        synchronous = integration is not None and integration.synchronous
        downlink = Downlink(
            id=work.id,
            tenant=work.tenant,
            device=work.device,
            integration=work.integration,
            state=State.REQUESTED,
            requested_ms=work.time_ms,
            changed_ms=self._now_ms,
            trace_id=trace,
            payload=request.payload,
            fields=request.fields,
            f_port=request.f_port,
            confirmed=request.confirmed,
            queue=request.queue or ("replace" if synchronous else "last"),
            priority=request.priority,
            expires_at_ms=request.expires_at_ms,
            supersede_key=request.supersede_key,
            source=request.source,
        )
        queue.begin(downlink)
        try:
            if isinstance(encoded, MessageError):
                raise encoded
            if integration is None:
                raise MessageError(
                    f"there is no integration `{work.integration}`", code="no_integration"
                )
            downlink = self._with_bytes(downlink, encoded, integration)
        except MessageError as fault:
            detail = {"message": fault.message, **fault.detail}
            return queue.move(downlink, State.FAILED, reason=fault.code, detail=detail)
        downlink = queue.move(downlink, State.ENCODED)
        if downlink.expires_at_ms is not None and downlink.expires_at_ms <= self._now_ms:
            return queue.move(downlink, State.EXPIRED)
        downlink = queue.add(downlink, waiting_max=integration.queue_max)
        if not integration.synchronous:
            self._send_next(queue, integration)
        return queue.get(downlink.id) or downlink

    @staticmethod
    def _with_bytes(downlink: Downlink, encoded: Encoded, integration: Integration) -> Downlink:
        dialect = integration.dialect
        f_port = encoded.f_port if dialect.has_f_port else downlink.f_port
        if f_port is None and dialect.has_f_port:
            f_port = 1  # The Things Stack's own default where the encoder names none
        detail = {"warnings": list(encoded.warnings)} if encoded.warnings else {}
        changed = msgspec.structs.replace(
            downlink, payload=encoded.payload, f_port=f_port, detail=detail
        )
        if encoded.payload is None and not dialect.takes_fields:
            raise MessageError(
                f"there are fields and no bytes: the converter of `{integration.name}` has no"
                " downlinkEncoder; write one, or give the payload",
                code="no_encoder",
            )
        dialect.check(changed)
        return changed

    def _send_next(self, queue: DeviceQueue, integration: Integration) -> None:
        """On an asynchronous link: hand the next one over, one at a time, so that order holds."""
        if queue.is_sending(integration.name):
            return
        downlink = queue.take(integration.name)
        if downlink is None:
            return
        downlink = queue.move(downlink, State.SENDING)
        delivery = Delivery(
            id=derive_id(downlink.id, "d"),
            tenant=downlink.tenant,
            device=downlink.device,
            destination=topics.downlink_destination(downlink.integration),
            time_ms=self._now_ms,
            downlink=downlink,
            link=queue.link(integration.name),
        )
        self.out.put(
            topics.delivery_topic(downlink.tenant, delivery.destination),
            device_key(downlink.tenant, downlink.device),
            delivery,
            event_id=delivery.id,
            cause=downlink.id,
            trace=downlink.trace_id,
            tenant=downlink.tenant,
        )

    def _window(self, record: Record, work: ReplyWindow, queue: DeviceQueue) -> None:
        reply_to = reply_to_of(record)
        integration = self._integration(work.tenant, work.integration)
        window = work.window
        answer: Downlink | None = None
        if window.carries and integration is not None and reply_to is not None:
            given = dict(queue.windows(integration.dialect.repeat_window_s * 1000))
            first = not work.repeated and window.key not in given
            if reply_to.deadline_ms > self._now_ms:
                answer = (
                    queue.take(integration.name)
                    if first
                    else self._again(queue, window.key, given.get(window.key, ""))
                )
            if first:
                queue.remember_window(window.key, answer.id if answer else "")
            if answer is not None and answer.state in WAITING:
                answer = queue.move(answer, State.ANSWERING, window_key=window.key)
            elif answer is not None and answer.state is State.ANSWERING:
                queue.share(answer)
            if answer is not None and answer.state is State.ANSWERING:
                self._state.set_timer(
                    device_key(work.tenant, work.device),
                    f"answer/{answer.id}",
                    reply_to.deadline_ms + ANSWER_GRACE_MS,
                )
        reply = Reply("", device=work.device, part=window.part, of=window.of)
        if answer is not None:
            reply = msgspec.structs.replace(
                reply,
                downlink_id=answer.id,
                payload=answer.payload,
                f_port=answer.f_port,
                fields=answer.fields,
            )
        self.out.reply(record, work.tenant, reply)

    @staticmethod
    def _again(queue: DeviceQueue, window_key: str, downlink_id: str) -> Downlink | None:
        """Return what the first request got; what has been taken back since is not given again,
        nor what surely did not leave by the first request and is now another uplink's.
        """
        downlink = queue.get(downlink_id) if downlink_id else None
        taken_back = (State.CANCELLED, State.SUPERSEDED, State.EXPIRED, State.FAILED)
        if downlink is None or downlink.state in taken_back:
            return None
        own = downlink.window_key == window_key or downlink.state in WAITING
        return downlink if own or downlink.possibly_delivered else None

    def _report(self, record: Record, work: DownlinkReport, queue: DeviceQueue) -> None:
        report = work.report
        named = report.downlink_id or report.reference
        if report.downlink_id:
            downlink = queue.get(report.downlink_id)
        elif report.reference:
            downlink = queue.referred(report.reference)
        else:
            downlink = queue.last_sent()
        if downlink is None:
            text = (
                f"no downlink `{named}` is known of this device"
                if named
                else "this device has no downlink that was sent"
            )
            self.out.bury(record, "unknown_downlink", text, {"state": report.state})
            return
        if report.state is State.QUEUED:
            if downlink.state is State.ANSWERING:
                integration = self._integration(work.tenant, downlink.integration)
                sure = report.reason == "too_late"  # the door had answered without it
                self._unanswered(queue, downlink, integration, report.reason, delivered=not sure)
        elif not queue.report(
            downlink,
            report.state,
            reason=report.reason,
            detail={
                **downlink.detail,
                **report.detail,
                **({"reference": report.reference} if report.reference else {}),
            },
            possibly_delivered=downlink.possibly_delivered
            or report.detail.get("possibly_delivered") is True,
        ):
            text = f"a downlink does not go from {downlink.state} to {report.state}"
            self.out.bury(record, "illegal_move", text, {"downlink": downlink.id})
        integration = self._integration(work.tenant, downlink.integration)
        if integration is not None and not integration.synchronous:
            self._send_next(queue, integration)

    def _unanswered(
        self,
        queue: DeviceQueue,
        downlink: Downlink,
        integration: Integration | None,
        reason: str,
        *,
        delivered: bool,
    ) -> None:
        """Put an answer back that perhaps did not arrive, or fail it: the integration's choice."""
        if delivered and integration is not None and integration.unanswered == "fail":
            queue.move(downlink, State.FAILED, reason=reason, possibly_delivered=True)
        else:
            queue.put_back(downlink, reason=reason, delivered=delivered)

    def _query(self, record: Record, work: Query, queue: DeviceQueue) -> None:
        if work.what == "downlinks":
            body: Any = {"downlinks": [msgspec.to_builtins(d) for d in queue.all()]}
            self.out.reply(record, work.tenant, Reply("", status=200, body=body))
            return
        downlink = queue.get(work.downlink_id)
        if downlink is None:
            self.out.reply(record, work.tenant, _unknown(work.downlink_id))
        else:
            body = msgspec.to_builtins(downlink)
            self.out.reply(record, work.tenant, Reply("", status=200, body=body))

    def _cancel(self, record: Record, work: Cancel, queue: DeviceQueue) -> None:
        if not work.downlink_id:
            taken = [queue.move(d, State.CANCELLED, by=work.by).id for d in queue.waiting()]
            self.out.reply(record, work.tenant, Reply("", status=200, body={"cancelled": taken}))
            return
        downlink = queue.get(work.downlink_id)
        if downlink is None:
            self.out.reply(record, work.tenant, _unknown(work.downlink_id))
        elif downlink.state in WAITING:
            queue.move(downlink, State.CANCELLED, by=work.by)
            body = {"cancelled": [downlink.id]}
            self.out.reply(record, work.tenant, Reply("", status=200, body=body))
        else:
            error = {
                "code": "not_waiting",
                "message": f"the downlink is {downlink.state}; only a waiting one can be cancelled",
            }
            self.out.reply(record, work.tenant, Reply("", status=409, body={"error": error}))


def _unknown(downlink_id: str) -> Reply:
    error = {"code": "not_found", "message": f"this device has no downlink `{downlink_id}`"}
    return Reply("", status=404, body={"error": error})
