"""The API: a command or a query in, what its device's owner replied out.

Knows no transport: the server hands in requests and writes answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations.dialect import check_device_name
from pipeline.model.event import Query
from pipeline.model.http import Response
from pipeline.model.reply import Reply
from pipeline.rulebook.book import Rulebooks

from .access import Access
from .calls import Calls
from .commands import (
    ATTRIBUTES_MAX,
    RIGHTS,
    Target,
    command_of,
    delete_attributes,
    parse_path,
)
from .idempotency import check_key
from .network_queues import NetworkQueues
from .owner import Command, Owners
from .problem import JSON, of_message, problem
from .settings import CALL_TIMEOUT_MAX_S

_encode = msgspec.json.Encoder().encode


class Admitted(NamedTuple):
    """A request that may be made: whose body is worth reading."""

    target: Target
    method: str
    by: str
    idempotency_key: str = ""


class Api:
    """Takes the API's requests. `admit` comes before the body is read, `handle` after."""

    def __init__(
        self,
        owners: Owners,
        rulebooks: Rulebooks,
        access: Access,
        queues: NetworkQueues,
        call_timeout_max_s: float = CALL_TIMEOUT_MAX_S,
    ) -> None:
        self._owners = owners
        self._calls = Calls(owners, call_timeout_max_s)
        self._rulebooks = rulebooks
        self._access = access
        self._queues = queues

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
            key = check_key(headers) if method == "POST" else ""
        except MessageError as error:
            return of_message(error)
        return Admitted(target, method, by, key)

    async def handle(self, admitted: Admitted, query: Mapping[str, str], body: bytes) -> Response:
        """Return the owner's answer; 504 where it does not answer in `api_timeout_s`, or a device
        that is called in the call's own time.
        """
        target, method, by, key = admitted
        try:
            if target.resource == "attributes" and method == "DELETE" and "keys" not in query:
                return await self._delete_all(target, by)
            if target.resource == "calls" and method == "POST":
                return await self._calls.make(target, body, by, key)
            command = command_of(target, method, query, body, self._owners.origin(by), key)
        except MessageError as error:
            return of_message(error)
        return await self._ask(command)

    async def _delete_all(self, target: Target, by: str) -> Response:
        """Delete the attributes that the scope has now: ask for their names, then delete them."""
        answer = await self._ask(command_of(target, "GET", {}, b"", self._owners.origin(by)))
        if answer.status != 200:
            return answer
        names = tuple(orjson.loads(answer.body))
        for start in range(0, len(names), ATTRIBUTES_MAX):
            some = names[start : start + ATTRIBUTES_MAX]
            answer = await self._ask(delete_attributes(target, some, self._owners.origin(by)))
            if answer.status != 200:
                break
        return answer

    async def _ask(self, command: Command) -> Response:
        reply = await self._owners.ask(command)
        if isinstance(reply, Response):
            return reply
        if isinstance(command, Query) and command.network_server and reply.status == 200:
            ours = reply.body.get("downlinks", ())
            shown = await self._queues.show(command.tenant, reply.links, ours)
            reply = msgspec.structs.replace(reply, body={**reply.body, "network_servers": shown})
        return _response(reply)


def _response(reply: Reply) -> Response:
    if reply.status == 204:
        return Response(status=204)
    body = b"{}" if reply.body is None else _encode(reply.body)
    return Response(status=reply.status, body=body, headers=JSON)
