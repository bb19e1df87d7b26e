"""Stage `downlink`: reads `downlink.requested`, writes `downlink.status`, `delivery.…`, `reply`,
`dead.letter`.

Each device has one owner and one order here, so that a downlink is given to one request only. The
life of a downlink is
drawn in `model/downlink.py`; the queue itself is `queue.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from pipeline import topics
from pipeline.downlink.encode import encode
from pipeline.downlink.entering import Entering, Result
from pipeline.downlink.handover import carrying, clear, send_next
from pipeline.downlink.idempotency import Answers
from pipeline.downlink.limits import Limits
from pipeline.downlink.outputs import STAGE, Outputs
from pipeline.downlink.queue import DeviceQueue
from pipeline.errors import MessageError
from pipeline.metrics import Registry
from pipeline.model.downlink import WAITING, Downlink, State
from pipeline.model.event import (
    Cancel,
    DownlinkReport,
    DownlinkWork,
    Forget,
    Query,
    ReplyWindow,
    RequestedDownlink,
    RequestedDownlinks,
)
from pipeline.model.record import (
    EVENT_ID,
    REPLY_TO,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    device_key,
    split_key,
)
from pipeline.model.reply import Reply, read_reply_to
from pipeline.model.uplink import Link
from pipeline.ports import Batch, DeviceState, DueTimer, ScriptPort
from pipeline.rulebook.book import Integration, Rulebook, Rulebooks

_decode_work = msgspec.json.Decoder(DownlinkWork).decode


class DownlinkStage:
    """Encodes, queues, answers and follows downlinks. See `ports.Stage`."""

    name = STAGE
    topic = topics.DOWNLINK_REQUESTED
    state_topic: str | None = topics.DOWNLINK_STATE

    def __init__(
        self,
        rulebooks: Rulebooks,
        scripts: ScriptPort,
        metrics: Registry,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._rulebooks = rulebooks
        self._scripts = scripts
        self._metrics = metrics

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """Return status records, deliveries, replies and dead letters of one batch."""
        books = self._rulebooks()
        step = _Step(books, state, now_ms, self._limits)
        for timer in batch.timers:
            step.timer(timer)
        works: list[tuple[Record, DownlinkWork]] = []
        for record in batch.records:
            try:
                works.append((record, _decode_work(record.value or b"")))
            except msgspec.MsgspecError as fault:
                step.out.bury(record, "undecodable", str(fault), {})
        requests = [one for _, work in works for one in _requests(work)]
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

    def __init__(
        self, books: Mapping[str, Rulebook], state: DeviceState, now_ms: int, limits: Limits
    ) -> None:
        self._limits = limits
        self._books = books
        self._state = state
        self._now_ms = now_ms
        self.out = Outputs(books, now_ms)

    def work(self, record: Record, work: DownlinkWork, encoded: Iterator[Result]) -> None:
        """Handle one record; one that cannot be handled leaves nothing but its dead letter."""
        results = list(islice(encoded, len(_requests(work))))
        mark, made = self._state.savepoint(), len(self.out.records)
        try:
            self._work(record, work, results)
        except MessageError as fault:
            self._state.rollback(mark)
            del self.out.records[made:]
            self.out.bury(record, fault.code, fault.message, fault.detail)
            error = {"error": {"code": fault.code, "message": fault.message}}
            self.out.reply(record, work.tenant, Reply("", status=422, body=error))

    def _work(self, record: Record, work: DownlinkWork, results: list[Result]) -> None:
        moved: list[Downlink] = []
        key = device_key(work.tenant, work.device)
        queue = DeviceQueue(self._state, key, self._now_ms, moved, self._limits)
        cause = record.headers.get(EVENT_ID) or work.id
        trace = record.headers.get(TRACE_ID, cause)
        match work:
            case RequestedDownlink():
                entering = self._entering(queue, work.tenant, work.device, work.integration, trace)
                self.out.reply(record, work.tenant, _in_parts(work, entering.one(work, results[0])))
            case RequestedDownlinks():
                entering = self._entering(queue, work.tenant, work.device, work.integration, trace)
                self.out.reply(record, work.tenant, entering.several(work, results))
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
        queue = DeviceQueue(self._state, timer.key, self._now_ms, moved, self._limits)
        downlink = queue.get(downlink_id)
        if downlink is None:
            return
        if kind == "expire" and downlink.state in WAITING:
            queue.move(downlink, State.EXPIRED)
        elif kind == "answer" and downlink.state is State.ANSWERING:
            integration = self._integration(tenant, downlink.integration)
            self._unanswered(queue, downlink, integration, "no_report", delivered=True)
            if integration is not None:
                send_next(self.out, queue, integration, self._now_ms)
        cause = derive_id(downlink.id, f"{kind}-{timer.due_ms}")
        queue.close()
        self.out.tell(moved, cause, downlink.trace_id or downlink.id)

    def _integration(self, tenant: str, name: str) -> Integration | None:
        book = self._books.get(tenant)
        return book.integrations.get(name) if book else None

    def _entering(
        self, queue: DeviceQueue, tenant: str, device: str, integration: str, trace: str
    ) -> Entering:
        return Entering(
            queue,
            Answers(self._state, device_key(tenant, device), self._now_ms, self._limits),
            self.out,
            self._integration(tenant, integration),
            now_ms=self._now_ms,
            trace=trace,
        )

    def _window(self, record: Record, work: ReplyWindow, queue: DeviceQueue) -> None:
        reply_to = read_reply_to(record.headers.get(REPLY_TO))
        integration = self._integration(work.tenant, work.integration)
        if reply_to is not None and reply_to.mode == "open":
            if integration is not None and integration.synchronous:
                queue.windows.open(integration.name, reply_to)
                send_next(self.out, queue, integration, self._now_ms)
            return
        window = work.window
        answer: Downlink | None = None
        if window.carries and integration is not None and reply_to is not None:
            given = queue.window(window.key, integration.dialect.repeat_window_s * 1_000)
            first = not work.repeated and given is None
            if reply_to.deadline_ms > self._now_ms:
                answer = (
                    queue.take(integration.name) if first else self._again(queue, window.key, given)
                )
            if first and answer is not None and integration.dialect.repeat_window_s:
                queue.remember_window(window.key, answer.id)
            if answer is not None and answer.state in WAITING:
                answer = queue.move(answer, State.ANSWERING, window_key=window.key)
            elif answer is not None and answer.state is State.ANSWERING:
                queue.share(answer)
            if answer is not None and answer.state is State.ANSWERING:
                self._state.set_timer(
                    device_key(work.tenant, work.device),
                    f"answer/{answer.id}",
                    reply_to.deadline_ms + self._limits.answer_grace_ms,
                )
        reply = Reply("") if answer is None else carrying(answer)
        reply = msgspec.structs.replace(reply, device=work.device, part=window.part, of=window.of)
        self.out.reply(record, work.tenant, reply)

    @staticmethod
    def _again(queue: DeviceQueue, window_key: str, given: str | None) -> Downlink | None:
        """Return what the first request got; what has been taken back since is not given again,
        nor what surely did not leave by the first request and is now another uplink's.
        """
        downlink = queue.get(given) if given else None
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
            downlink = queue.last_sent(work.integration)
        if report.cleared:
            self._cleared(queue, work)
            return
        if downlink is None and work.outcome:
            return  # told again, of a downlink whose life was over and is forgotten
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
        if integration is not None:
            send_next(self.out, queue, integration, self._now_ms)

    @staticmethod
    def _cleared(queue: DeviceQueue, work: DownlinkReport) -> None:
        """Note on what the network server had, and had not sent, that its queue was emptied."""
        for downlink in queue.all():
            held = downlink.state in (State.SENT, State.ACCEPTED)
            gone = held and not downlink.detail.get("transmitted")
            if gone and downlink.integration == work.integration and downlink.reason != "cleared":
                detail = {**downlink.detail, "cleared_ms": work.time_ms}
                queue.begin(msgspec.structs.replace(downlink, reason="cleared", detail=detail))

    def _unanswered(
        self,
        queue: DeviceQueue,
        downlink: Downlink,
        integration: Integration | None,
        reason: str,
        *,
        delivered: bool,
    ) -> None:
        """Put an answer back that perhaps did not arrive, or fail it: the integration's choice.

        Where it was to leave by a window that stays open, that one is open no more.
        """
        queue.windows.close(downlink.integration, downlink.window_key)
        if delivered and integration is not None and integration.unanswered == "fail":
            queue.move(downlink, State.FAILED, reason=reason, possibly_delivered=True)
        else:
            queue.put_back(downlink, reason=reason, delivered=delivered)

    def _query(self, record: Record, work: Query, queue: DeviceQueue) -> None:
        if work.what == "downlinks":
            body: Any = {"downlinks": [msgspec.to_builtins(d) for d in queue.all()]}
            links = self._links(work, queue) if work.network_server else {}
            self.out.reply(record, work.tenant, Reply("", status=200, body=body, links=links))
            return
        downlink = queue.get(work.downlink_id)
        if downlink is None:
            self.out.reply(record, work.tenant, _unknown(work.downlink_id))
        else:
            body = msgspec.to_builtins(downlink)
            self.out.reply(record, work.tenant, Reply("", status=200, body=body))

    def _links(self, work: Query | Cancel, queue: DeviceQueue) -> dict[str, Link]:
        """Return the device's ways to network servers that have queues of their own."""
        links = queue.links()
        if work.link is not None:
            links[work.integration] = work.link
        found = ((name, self._integration(work.tenant, name)) for name in links)
        return {name: links[name] for name, known in found if known and not known.synchronous}

    def _cancel(self, record: Record, work: Cancel, queue: DeviceQueue) -> None:
        if not work.downlink_id:
            taken = [queue.move(d, State.CANCELLED, by=work.by).id for d in queue.waiting()]
            body: dict[str, Any] = {"cancelled": taken}
            if work.network_server:
                body["clearing"] = self._clear(work, queue)
            self.out.reply(record, work.tenant, Reply("", status=200, body=body))
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

    def _clear(self, work: Cancel, queue: DeviceQueue) -> list[str]:
        """Ask the network servers to empty their queues of the device; return their names."""
        links = self._links(work, queue)
        for name, link in links.items():
            integration = self._integration(work.tenant, name)
            assert integration is not None, "`_links` gives known ones"
            cause = derive_id(work.id, name)
            clear(self.out, integration, work.device, link, cause, self._now_ms)
        return list(links)


def _requests(work: DownlinkWork) -> list[RequestedDownlink]:
    """Return what of a work is to be encoded."""
    if isinstance(work, RequestedDownlink):
        return [work]
    return work.each() if isinstance(work, RequestedDownlinks) else []


def _in_parts(work: RequestedDownlink, reply: Reply) -> Reply:
    """Return the answer to who asks; of what is not taken there is no further part."""
    return msgspec.structs.replace(reply, of=work.answer_parts) if reply.status < 300 else reply


def _unknown(downlink_id: str) -> Reply:
    error = {"code": "not_found", "message": f"this device has no downlink `{downlink_id}`"}
    return Reply("", status=404, body={"error": error})
