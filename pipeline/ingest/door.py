"""The door in: an integration's request → a record of `uplink.received`, and the answer.

Requests that wait are answered from topic `reply`; whether their downlinks left is told to
`device.events`. Knows no transport: the server hands in requests and writes answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any, NamedTuple

import msgspec
import orjson

from pipeline.errors import MessageError, RetryableError, StorageFullError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.event import WindowOpened
from pipeline.model.http import Request, Response
from pipeline.model.record import (
    CE_ID,
    CE_INTEGRATION,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_TENANT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    HTTP_HEADERS,
    HTTP_METHOD,
    HTTP_QUERY,
    REPLY_TO,
    UPLINK_RECEIVED_TYPE,
    Outgoing,
    device_key,
    headers_of,
)
from pipeline.model.reply import Reply, ReplyTo
from pipeline.model.uplink import Uplink
from pipeline.ports import Log
from pipeline.rulebook.book import Integration, Rulebooks
from pipeline.topics import DEVICE_EVENTS, UPLINK_RECEIVED

from .credentials import NO_CREDENTIALS, Credentials
from .problem import of_message, problem
from .reports import Outcome, Reports
from .settings import IngestSettings
from .source_health import IntegrationStatus
from .waiting import Waiter, Waiting
from .windows import Leaving, Window

HEADERS_KEPT = frozenset(
    {"content-type", "user-agent", "idempotency-key", "webhook-id", "x-tts-domain"}
)
"""Of a request's headers only these, `x-downlink-*`, and those that the integration's options
name, go on: a record is kept for days, and read by many."""
HEADERS_NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
SPREAD = 64
"""Over how many keys an integration's requests go that name no device and need no order."""

_encode = msgspec.json.Encoder().encode
_log = get_logger(__name__)


class Gate:
    """One integration as the door needs it; made once for each version of it."""

    __slots__ = (
        "credentials", "headers_kept", "integration", "key", "last_ms", "refused", "source",
        "taken",
    )  # fmt: skip

    def __init__(self, integration: Integration) -> None:
        self.integration = integration
        self.credentials = Credentials(integration.authentication)
        self.source = f"/in/{integration.tenant}/{integration.name}"
        self.key = f"{integration.tenant}/{integration.name}"
        self.taken = self.refused = 0  # requests since this version of the integration
        self.last_ms: int | None = None  # when the last one was taken
        never = HEADERS_NEVER_KEPT | {self.credentials.header}
        self.headers_kept = (HEADERS_KEPT | _headers_named(integration.options)) - never

    def request(
        self, method: str, headers: Mapping[str, str], query: Mapping[str, str], body: bytes
    ) -> Request:
        """Return the request as dialects and records have it: without the secret, and without
        the headers that nobody there needs.
        """
        kept = {}
        for name, value in headers.items():
            lower = name.lower()
            if lower in self.headers_kept or (
                lower.startswith("x-downlink-") and lower != self.credentials.header
            ):
                kept[lower] = value if value.isascii() else _text(value)
        hidden = self.credentials.query
        shown = {name: value for name, value in query.items() if name != hidden}
        return Request(body=body, method=method, query=shown, headers=kept)


class Answer(NamedTuple):
    """What the server writes. `handed_over`, where there is one, must be called once, with what
    became of it.
    """

    response: Response
    handed_over: Callable[[Outcome], None] | None = None


class Door:
    """Takes the requests of all integrations. `enter` comes before the body is read, `take`
    after.
    """

    def __init__(
        self,
        log: Log,
        rulebooks: Rulebooks,
        waiting: Waiting,
        reports: Reports,
        settings: IngestSettings,
        *,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._log = log
        self._rulebooks = rulebooks
        self._waiting = waiting
        self._reports = reports
        self._settings = settings
        self._new_id = new_id
        self._now_ms = now_ms
        self._gates: dict[tuple[str, str], Gate] = {}
        self._counts: dict[tuple[str, str, int], int] = {}
        self._spread = 0
        self._trouble = ""
        self._second = -1
        self._second_text = ""

    def window(self, gate: Gate, hand_over: Callable[[Leaving], None], lasts_s: float) -> Window:
        """Open a window for one connection of an integration: see `windows.Window`."""
        return Window(
            self._waiting,
            self._reports,
            hand_over,
            tenant=gate.integration.tenant,
            request=self._new_id(),
            lasts_s=lasts_s,
            now_ms=self._now_ms,
        )

    def opened(self, gate: Gate, device: str, way_back: str, now_ms: int) -> Outgoing:
        """Return the record that tells of a window before its device has said anything."""
        integration = gate.integration
        event = WindowOpened(
            id=self._new_id(),
            tenant=integration.tenant,
            device=device,
            integration=integration.name,
            time_ms=now_ms,
        )
        headers = headers_of(
            event_id=event.id, trace=event.id, cause=event.id, tenant=event.tenant, rules=""
        )
        headers[REPLY_TO] = way_back
        return Outgoing(DEVICE_EVENTS, device_key(event.tenant, device), _encode(event), headers)

    def record(self, gate: Gate, request: Request, arrived_ms: int) -> tuple[Outgoing, bool]:
        """Return the record of a message that nobody can be refused, and whether the dialect can
        read it: what it cannot read goes on as it came, and ends as a dead letter.
        """
        integration = gate.integration
        uplinks: list[Uplink] = []
        try:
            uplinks = integration.dialect.read(
                request, integration.options, integration.device_template
            )
        except MessageError as error:
            _log.debug("a message is none of the dialect", error=error.message)
        headers = self._headers(gate, request, self._new_id(), arrived_ms)
        key = self._key(gate, uplinks) if uplinks else gate.key
        record = Outgoing(topic=UPLINK_RECEIVED, key=key, value=request.body, headers=headers)
        return record, bool(uplinks)

    def enter(
        self, tenant: str, name: str, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Gate | None:
        """Return the integration's gate if the request may pass; None: refuse it with
        `unauthorized`, whether there is no such integration or its secret is wrong.
        """
        book = self._rulebooks().get(tenant)
        integration = book.integrations.get(name) if book is not None else None
        if integration is None or integration.connection is not None:
            NO_CREDENTIALS.proven(headers, query)
            self._gates.pop((tenant, name), None)
            return None
        gate = self._gates.get((tenant, name))
        if gate is None or gate.integration is not integration:
            gate = self._gates[tenant, name] = Gate(integration)
        return gate if gate.credentials.proven(headers, query) else None

    async def take(self, gate: Gate, request: Request, arrived_ms: int) -> Answer:
        """Append the request, and return its answer: once it is durable, or, where the
        integration is synchronous, when all replies are there or `answer_timeout_s` has passed
        since `arrived_ms`. `request` is made by `Gate.request`.
        """
        integration = gate.integration
        try:
            uplinks = integration.dialect.read(
                request, integration.options, integration.device_template
            )
        except MessageError as error:
            return Answer(of_message(error))
        trace = self._new_id()
        record = Outgoing(
            topic=UPLINK_RECEIVED,
            key=self._key(gate, uplinks),
            value=request.body,
            headers=self._headers(gate, request, trace, arrived_ms),
        )
        if integration.synchronous:
            return await self._take_and_wait(integration, request, record, arrived_ms)
        refusal = await self._append(record)
        return Answer(refusal or integration.dialect.answer((), request, integration.options))

    async def _take_and_wait(
        self, integration: Integration, request: Request, record: Outgoing, arrived_ms: int
    ) -> Answer:
        trace = record.headers[CE_ID]
        waiter = None if self._reports.full else self._waiting.open(trace)
        if waiter is None:
            return Answer(busy("too many requests wait for their answer", self._settings))
        deadline_ms = arrived_ms + round(integration.answer_timeout_s * 1_000)
        reply_to = ReplyTo(
            instance=self._waiting.instance,
            request=trace,
            deadline_ms=deadline_ms,
            partition=self._waiting.partition,
        )
        record.headers[REPLY_TO] = _encode(reply_to).decode()
        answer = None
        try:
            refusal = await self._append(record)
            if refusal is not None:
                return Answer(refusal)
            replies = await waiter.replies((deadline_ms - self._now_ms()) / 1_000)
            answer = self._answer(integration, request, replies, waiter)
            return answer
        finally:
            if answer is None:
                self._waiting.close(waiter)

    def _answer(
        self,
        integration: Integration,
        request: Request,
        replies: Sequence[Reply],
        waiter: Waiter,
    ) -> Answer:
        carried = [reply for reply in replies if reply.downlink_id]
        try:
            response = integration.dialect.answer(replies, request, integration.options)
        except MessageError as error:
            # The downlink stage checked the downlink by the same dialect; so this is rare.
            _log.warning("the dialect cannot say the answer", error=error.message)
            self._report(integration.tenant, waiter, carried, "too_late")
            return Answer(integration.dialect.answer((), request, integration.options))
        if not carried:
            self._waiting.close(waiter)
            return Answer(response)

        def handed_over(outcome: Outcome) -> None:
            self._report(integration.tenant, waiter, carried, outcome)

        return Answer(response, handed_over)

    def _report(
        self, tenant: str, waiter: Waiter, carried: Sequence[Reply], outcome: Outcome
    ) -> None:
        for reply in carried:
            self._reports.add(tenant, reply, waiter.request, outcome)
        self._waiting.close(waiter, (reply.downlink_id for reply in carried))

    async def _append(self, record: Outgoing) -> Response | None:
        """Write the record; return the refusal where the log did not take it."""
        try:
            await self._log.append((record,))
        except RetryableError as error:
            return self._refuse(error)
        if self._trouble:
            _log.info("the log takes uplinks again", after=self._trouble)
            self._trouble = ""
        return None

    def _headers(self, gate: Gate, request: Request, trace: str, arrived_ms: int) -> dict[str, str]:
        integration = gate.integration
        headers = {
            CE_SPECVERSION: "1.0",
            CE_ID: trace,
            CE_SOURCE: gate.source,
            CE_TYPE: UPLINK_RECEIVED_TYPE,
            CE_TIME: self._rfc3339(arrived_ms),
            CE_TENANT: integration.tenant,
            CE_INTEGRATION: integration.name,
            HTTP_METHOD: request.method,
        }
        content_type = request.headers.get("content-type")
        if content_type is not None:
            headers[CONTENT_TYPE] = content_type
        if request.query:
            headers[HTTP_QUERY] = orjson.dumps(request.query).decode()
        if request.headers:
            headers[HTTP_HEADERS] = orjson.dumps(request.headers).decode()
        return headers

    def _key(self, gate: Gate, uplinks: Sequence[Uplink]) -> str:
        device = uplinks[0].device
        if device and (len(uplinks) == 1 or all(up.device == device for up in uplinks)):
            return f"{gate.integration.tenant}/{device}"
        if gate.integration.ordered:
            return gate.key
        self._spread = (self._spread + 1) % SPREAD
        return f"{gate.key}#{self._spread}"

    def _refuse(self, error: RetryableError) -> Response:
        if self._trouble != error.code:
            self._trouble = error.code
            _log.error("the log takes no uplinks; requests are answered 503", error=error.message)
        if isinstance(error, StorageFullError):
            said = "there is no room to store the message; nothing was taken"
        else:
            said = "the message cannot be stored now"
        return busy(said, self._settings, code=error.code, retry_after_s=error.retry_after_s)

    def _rfc3339(self, now_ms: int) -> str:
        second, rest = divmod(now_ms, 1_000)
        if second != self._second:
            # Thousands of requests share a second; formatting it costs more than the rest here.
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{rest:03d}Z"

    def count(self, gate: Gate | None, status: int) -> None:
        """Count one answer. Requests without an integration share one label: the names in them
        are anybody's.
        """
        integration = gate.integration if gate is not None else None
        if gate is not None and status < 300:
            gate.taken += 1
            gate.last_ms = self._now_ms()
        elif gate is not None:
            gate.refused += 1
        key = (
            (integration.tenant, integration.name, status)
            if integration is not None
            else ("", "", status)
        )
        self._counts[key] = self._counts.get(key, 0) + 1

    def status(self) -> list[IntegrationStatus]:
        """Return what each integration that is posted to has taken since its last edit."""
        found = []
        for book in self._rulebooks().values():
            for integration in book.integrations.values():
                if integration.connection is not None:
                    continue
                gate = self._gates.get((integration.tenant, integration.name))
                found.append(
                    IntegrationStatus(
                        tenant=integration.tenant,
                        integration=integration.name,
                        dialect=integration.dialect.name,
                        transport=integration.transport,
                        state="open",
                        since_ms=None,
                        last_message_ms=gate.last_ms if gate else None,
                        messages=gate.taken if gate else 0,
                        refused=gate.refused if gate else 0,
                        passed_over=0,
                        connects=0,
                        errors=0,
                    )
                )
        return found

    def flush(self, metrics: Registry) -> None:
        """Move the counts into the registry. Called now and then, not per request."""
        counts, self._counts = self._counts, {}
        for (tenant, integration, status), amount in counts.items():
            metrics.add(
                "funicular_requests_total",
                amount,
                tenant=tenant,
                integration=integration,
                status=str(status),
            )
        metrics.set("funicular_requests_waiting", len(self._waiting))


UNAUTHORIZED = problem(
    401,
    "unauthorized",
    "there is no such integration, or the request does not carry its secret",
    headers={"www-authenticate": 'Bearer realm="funicular"'},
)


def busy(
    message: str,
    settings: IngestSettings,
    *,
    code: str = "busy",
    retry_after_s: float | None = None,
) -> Response:
    """Return a 503 that says when to come again."""
    seconds = settings.retry_after_s if retry_after_s is None else retry_after_s
    return problem(503, code, message, headers={"retry-after": str(max(1, ceil(seconds)))})


def _text(value: str) -> str:
    """Return a header's value without the stand-ins for bytes that are not UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _headers_named(options: Any) -> frozenset[str]:
    """Return the request headers that a dialect's options name, by fields called `…_header`."""
    fields = getattr(type(options), "model_fields", {})
    named = (getattr(options, field) for field in fields if field.endswith("_header"))
    return frozenset(name.lower() for name in named if isinstance(name, str) and name)
