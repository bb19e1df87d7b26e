"""The API: a command or a query in, an event on `device.events`, its owner's reply out.

A reply of the owner says that all that was appended before is done: reads follow writes.
Knows no transport: the server hands in requests and writes answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import orjson
import structlog

from pipeline.errors import MessageError, RetryableError
from pipeline.integrations.dialect import check_device_name
from pipeline.model.event import Query
from pipeline.model.http import Response
from pipeline.model.record import REPLY_TO, Outgoing, device_key, headers_of
from pipeline.model.reply import Reply, ReplyTo
from pipeline.ports import Log
from pipeline.rulebook.book import Rulebooks
from pipeline.topics import DEVICE_EVENTS

from .access import Access
from .commands import (
    ATTRIBUTES_MAX,
    RIGHTS,
    Command,
    Origin,
    Target,
    command_of,
    delete_attributes,
    parse_path,
)
from .door import busy
from .problem import JSON, of_message, problem
from .settings import IngestSettings
from .waiting import Waiting

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


class Admitted(NamedTuple):
    """A request that may be made: whose body is worth reading."""

    target: Target
    method: str
    by: str


class Api:
    """Takes the API's requests. `admit` comes before the body is read, `handle` after."""

    def __init__(
        self,
        log: Log,
        rulebooks: Rulebooks,
        waiting: Waiting,
        access: Access,
        settings: IngestSettings,
        *,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._log = log
        self._rulebooks = rulebooks
        self._waiting = waiting
        self._access = access
        self._settings = settings
        self._new_id = new_id
        self._now_ms = now_ms

    def admit(
        self, method: str, path: str, headers: Mapping[str, str], peer: str
    ) -> Admitted | Response:
        """Return the request, or why it is refused. `path` is percent-encoded; `peer` the
        address it comes from.
        """
        target = parse_path(path)
        if target is None:
            return problem(404, "not_found", "there is nothing at this address")
        right = RIGHTS.get((target.resource, method))
        if right is None:
            allowed = ", ".join(verb for what, verb in RIGHTS if what == target.resource)
            return problem(
                405, "method", f"only {allowed} is possible here", headers={"allow": allowed}
            )
        by = self._access.check(headers, peer, target.tenant, right)
        if isinstance(by, Response):
            return by
        if target.tenant not in self._rulebooks():
            return problem(404, "no_tenant", f"there is no tenant {target.tenant[:100]!r}")
        try:
            check_device_name(target.device)
        except MessageError as error:
            return of_message(error)
        return Admitted(target, method, by)

    async def handle(self, admitted: Admitted, query: Mapping[str, str], body: bytes) -> Response:
        """Return the owner's answer; 504 where it does not answer in `api_timeout_s`."""
        target, method, by = admitted
        try:
            if target.resource == "attributes" and method == "DELETE" and "keys" not in query:
                return await self._delete_all(target, by)
            command = command_of(target, method, query, body, self._origin(by))
        except MessageError as error:
            return of_message(error)
        return await self._ask(command)

    async def _delete_all(self, target: Target, by: str) -> Response:
        """Delete the attributes that the scope has now: ask for their names, then delete them."""
        answer = await self._ask(command_of(target, "GET", {}, b"", self._origin(by)))
        if answer.status != 200:
            return answer
        names = tuple(orjson.loads(answer.body))
        for start in range(0, len(names), ATTRIBUTES_MAX):
            some = names[start : start + ATTRIBUTES_MAX]
            answer = await self._ask(delete_attributes(target, some, self._origin(by)))
            if answer.status != 200:
                break
        return answer

    def _origin(self, by: str) -> Origin:
        return Origin(self._new_id(), self._now_ms(), by)

    async def _ask(self, command: Command) -> Response:
        """Append the command and wait for its owner's reply."""
        waiter = self._waiting.open(command.id)
        if waiter is None:
            return busy("too many requests wait for their answer", self._settings)
        timeout_s = self._settings.api_timeout_s
        try:
            await self._log.append((self._record(command, timeout_s),))
            replies = await waiter.replies(timeout_s)
        except RetryableError as error:
            _log.warning("a command was not taken", error=error.message)
            return busy(
                "the request cannot be stored now; nothing was taken",
                self._settings,
                code=error.code,
                retry_after_s=error.retry_after_s,
            )
        finally:
            self._waiting.close(waiter)
        return _response(replies[0]) if replies else _late(command, timeout_s)

    def _record(self, command: Command, timeout_s: float) -> Outgoing:
        book = self._rulebooks().get(command.tenant)
        headers = headers_of(
            event_id=command.id,
            trace=command.id,
            cause=command.id,
            tenant=command.tenant,
            rules=book.version if book is not None else "",
        )
        reply_to = ReplyTo(
            instance=self._waiting.instance,
            request=command.id,
            deadline_ms=command.time_ms + round(timeout_s * 1_000),
            partition=self._waiting.partition,
        )
        headers[REPLY_TO] = _encode(reply_to).decode()
        key = device_key(command.tenant, command.device)
        return Outgoing(DEVICE_EVENTS, key, _encode(command), headers)


def _response(reply: Reply) -> Response:
    if reply.status == 204:
        return Response(status=204)
    body = b"{}" if reply.body is None else _encode(reply.body)
    return Response(status=reply.status, body=body, headers=JSON)


def _late(command: Command, timeout_s: float) -> Response:
    if isinstance(command, Query):
        said = f"the owner of the device did not answer within {timeout_s:g} s; ask again"
    else:
        said = (
            f"the owner of the device did not answer within {timeout_s:g} s; the command is"
            " stored and will be done: do not send it again"
        )
    return problem(504, "timeout", said, id=command.id)
