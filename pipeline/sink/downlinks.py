"""The transport of downlinks: a network server's dialect makes the request, HTTP carries it.

In: `delivery.<tenant>.downlink-<integration>`. Out: requests; what became of them goes to
`device.events` (`endings.downlink_ending`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from pipeline.errors import MessageError, RetryableError
from pipeline.integrations.dialect import QueueDialect, Referring
from pipeline.logs import get_logger
from pipeline.model.delivery import Delivery
from pipeline.model.http import Call
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration
from pipeline.sink.batches import one_by_one
from pipeline.sink.calls import DENIED, USER_AGENT, Caller, blot, judge, unanswered
from pipeline.sink.transport import Context, Result, Verdict

WARNINGS_MAX = 100  # texts that are remembered, so that each is logged once
ERROR_TEXT_MAX = 500  # characters of a network server's own error message

_log = get_logger(__name__)
_NO_LINK = Link()
_PLAIN_HEADERS = frozenset({"accept", "content-type", "user-agent"})  # any other may be a key


class _ErrorBody(msgspec.Struct):
    """The Things Stack's error JSON, as far as it is read."""

    message: str = ""


_decode_error = msgspec.json.Decoder(_ErrorBody).decode


class DownlinkTransport:
    """See `transport.Transport`. One request a downlink; of one device one after the other."""

    name = "http"

    def __init__(self, integration: Integration, context: Context) -> None:
        settings = context.settings
        self._integration = integration
        self._context = context
        self.deliveries_max = 1
        self.concurrency = settings.downlink_concurrency
        self.retry = settings.downlink_retry
        self._caller = Caller(timeout_s=settings.downlink_timeout_s, settings=settings)
        self._warned: set[str] = set()

    async def open(self) -> None:
        """Make the connection pool."""
        await self._caller.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Hand each downlink over, in order; past one that is postponed, none is tried."""
        return await one_by_one(batch, self._hand_over)

    async def _hand_over(self, delivery: Delivery) -> Result:
        if delivery.downlink is None and not delivery.clear:
            return Result(Verdict.REFUSED, "no_downlink", "the delivery holds no downlink")
        integration = self._integration
        try:
            link = delivery.link or _NO_LINK
            call = self._request(delivery, link)
            answer = await self._caller.call(_with_user_agent(call))
        except RetryableError as error:
            if error.code == DENIED:
                # The address may be of the uplink's own making: it must not stop the others'.
                return Result(Verdict.REFUSED, error.code, error.message)
            return unanswered(error)
        except MessageError as error:
            return Result(Verdict.REFUSED, error.code, error.message, error.detail)
        self._warn(answer.warnings)
        secrets = _secrets(call)
        result = judge(
            answer,
            now_ms=self._context.now_ms(),
            pause_s_max=self._context.settings.retry_after_s_max,
            secrets=secrets,
        )
        if result.verdict is Verdict.DELIVERED:
            return _referred(result, _reference(integration.dialect, answer.body))
        if result.verdict is Verdict.POSTPONED:
            return result
        return _rejected(answer.status, answer.body, result, secrets)

    def _request(self, delivery: Delivery, link: Link) -> Call:
        integration = self._integration
        if delivery.downlink is not None:
            return integration.dialect.send(delivery.downlink, link, integration.options)
        if not isinstance(integration.dialect, QueueDialect):
            raise MessageError(
                f"{integration.dialect.name} has no way to empty a device's queue", code="no_clear"
            )
        return integration.dialect.clear_queue(link, integration.options)

    def _warn(self, warnings: Sequence[str]) -> None:
        for text in warnings:
            if text not in self._warned and len(self._warned) < WARNINGS_MAX:
                self._warned.add(text)
                _log.warning(
                    "The network server warns.",
                    tenant=self._context.tenant,
                    integration=self._integration.name,
                    warning=text[:ERROR_TEXT_MAX],
                )


def _reference(dialect: Any, answer: bytes) -> str:
    """Return what the network server calls the downlink, where the dialect can read it."""
    return dialect.reference(answer) if isinstance(dialect, Referring) else ""


def _referred(result: Result, reference: str) -> Result:
    if not reference:
        return result
    return msgspec.structs.replace(result, detail={**result.detail, "reference": reference})


def _rejected(status: int, body: bytes, result: Result, secrets: Sequence[str]) -> Result:
    """Say what The Things Stack says in its error JSON, where the answer is one."""
    try:
        said = _decode_error(body).message
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return result
    if not said:
        return result
    message = blot(said[:ERROR_TEXT_MAX], secrets)
    return msgspec.structs.replace(
        result, message=message, detail={"status": status, "message": message}
    )


def _with_user_agent(call: Call) -> Call:
    """Name us where the dialect does not: The Things Stack asks for it."""
    if any(name.lower() == "user-agent" for name in call.headers):
        return call
    return msgspec.structs.replace(call, headers={**call.headers, "user-agent": USER_AGENT})


def _secrets(call: Call) -> list[str]:
    """Return what of a request must not be seen in an error: keys in headers and in the query."""
    try:
        found = [value for _, value in parse_qsl(urlsplit(call.url).query)]
    except ValueError:
        found = []
    for name, value in call.headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            found += [value, *value.split()[-1:]]
    return found
