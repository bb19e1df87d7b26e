"""The doors of applications: downlinks in the ways of network servers that they know already.

In: requests as applications send them to The Things Network v2 and The Things Stack v3. Out: the
same command to the device's owner as the API's, and the answer as that system gives it. What a
system says and how stands in its own file (`ttn_v2_door.py`, `tts_v3_door.py`); here is what they
share: the key says the tenant; application and device name ours; the owner decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from pipeline.errors import MessageError
from pipeline.integrations.dialect import DeviceTemplate, Queued, check_device_name
from pipeline.model.downlink import DownlinkRequest
from pipeline.model.event import DownlinksCommand, Query
from pipeline.model.http import Response
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Rulebook, Rulebooks

from .access import Access
from .idempotency import check_key, idempotency_of
from .keys import Right
from .network_queues import NetworkQueues
from .owner import Owners
from .problem import of_message, problem

DEVICE_TEMPLATE = "{application_id}:{device_id}"
"""A device's name, where no integration says another."""
_KNOWN = frozenset({"application_id", "device_id"})


class Place(NamedTuple):
    """What an address means. `device_id` is empty where the body names the device; `process` is
    what the system calls the integration there, which may be one of ours.
    """

    application_id: str
    device_id: str
    process: str
    show: bool = False
    process_must_be: bool = False
    replace: bool = False


class Asked(NamedTuple):
    """What a body asks for."""

    requests: tuple[DownlinkRequest, ...]
    replace: bool
    device_id: str


class Speech(Protocol):
    """How one system speaks with applications."""

    dialect: str
    """The dialect of the integrations whose devices are meant, where no process says it."""
    prefix: str
    """Of all addresses of this system, other ones than `place` knows too; empty: there is none."""

    def place(self, path: str) -> Place | None:
        """Return what an address (percent-encoded) means; None: it is none of this system's."""
        ...

    def allowed(self, place: Place) -> tuple[str, ...]:
        """Return the methods that are possible at a place."""
        ...

    def key(self, query: Mapping[str, str]) -> str:
        """Return the key that the address carries; empty: look into the headers."""
        ...

    def read(self, place: Place, body: bytes, source: str) -> Asked:
        """Return what a body asks for. MessageError: what is wrong with it."""
        ...

    def done(self, place: Place, ids: list[str]) -> Response:
        """Return the answer to downlinks that were taken."""
        ...

    def listed(self, downlinks: list[dict[str, Any]], held: list[Queued]) -> Response:
        """Return a device's queue: what its network server holds, then what waits here."""
        ...

    def refused(self, response: Response) -> Response:
        """Return a refusal, which is `problem`'s, as this system says it."""
        ...


class Admitted(NamedTuple):
    """A request that may be made: whose body is worth reading."""

    speech: Speech
    place: Place
    method: str
    path: str
    tenant: str
    by: str
    idempotency_key: str

    def refused(self, response: Response) -> Response:
        """Say a refusal as the system does."""
        return self.speech.refused(response)


class Applications:
    """Takes applications' requests. `admit` comes before the body is read, `handle` after."""

    def __init__(
        self,
        speeches: tuple[Speech, ...],
        owners: Owners,
        rulebooks: Rulebooks,
        access: Access,
        queues: NetworkQueues,
    ) -> None:
        self._speeches = speeches
        self._owners = owners
        self._rulebooks = rulebooks
        self._access = access
        self._queues = queues

    def admit(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        peer: str,
    ) -> Admitted | Response | None:
        """Return the request, or why it is refused; None: the address is of none of the systems.

        `path` is percent-encoded; `peer` is the address that the request comes from.
        """
        for speech in self._speeches:
            place = speech.place(path)
            if place is None and speech.prefix and path.startswith(speech.prefix):
                return speech.refused(problem(404, "not_found", f"route `{path[:200]}` not found"))
            if place is None:
                continue
            allowed = speech.allowed(place)
            if method not in allowed:
                listed = ", ".join(allowed)
                refusal = problem(405, "method", f"only {listed} here", headers={"allow": listed})
                return speech.refused(refusal)
            rights: tuple[Right, ...] = ("read",) if place.show else ("downlink", "write")
            who = self._access.identify(headers, peer, rights, speech.key(query))
            if isinstance(who, Response):
                return speech.refused(who)
            tenant = self._tenant(who.tenant)
            if isinstance(tenant, Response):
                return speech.refused(tenant)
            try:
                key = check_key(headers) if method in ("POST", "PUT") else ""
            except MessageError as error:
                return speech.refused(of_message(error))
            return Admitted(speech, place, method, path, tenant, who.by, key)
        return None

    def _tenant(self, name: str) -> str | Response:
        """Return the tenant that a key is of; without keys, the only one that there is."""
        tenants = self._rulebooks()
        if name:
            return name if name in tenants else problem(404, "no_tenant", "no rules of this tenant")
        if len(tenants) == 1:
            return next(iter(tenants))
        return problem(
            403,
            "no_keys",
            "the address does not say which tenant is meant, the key does; make one with"
            " `funicular keys create`",
        )

    async def handle(self, admitted: Admitted, body: bytes) -> Response:
        """Return the answer, in the system's own words."""
        speech, place = admitted.speech, admitted.place
        try:
            if place.show:
                answer = await self._show(admitted)
            else:
                asked = speech.read(place, body, admitted.by)
                answer = await self._ask(admitted, asked, body)
        except MessageError as error:
            answer = of_message(error)
        return answer if answer.status < 400 else speech.refused(answer)

    async def _ask(self, admitted: Admitted, asked: Asked, body: bytes) -> Response:
        place = admitted.place
        origin = self._owners.origin(admitted.by)
        device, integration, fallback = self._device(admitted, asked.device_id)
        reply = await self._owners.ask(
            DownlinksCommand(
                id=origin.id,
                tenant=admitted.tenant,
                device=device,
                time_ms=origin.now_ms,
                requests=asked.requests,
                replace=asked.replace,
                integration=integration,
                fallback=fallback,
                link=Link(application_id=place.application_id, device_id=asked.device_id),
                idempotency=idempotency_of(
                    admitted.idempotency_key, admitted.method, admitted.path, body
                ),
                by=origin.by,
            )
        )
        if isinstance(reply, Response):
            return reply
        if reply.status >= 400:
            return _error(reply)
        said = reply.body if isinstance(reply.body, dict) else {}
        ids = [one.get("id", "") for one in said.get("downlinks", ())]
        return admitted.speech.done(place, ids)

    async def _show(self, admitted: Admitted) -> Response:
        place = admitted.place
        origin = self._owners.origin(admitted.by)
        device, _, _ = self._device(admitted, place.device_id)
        reply = await self._owners.ask(
            Query(
                id=origin.id,
                tenant=admitted.tenant,
                device=device,
                time_ms=origin.now_ms,
                what="downlinks",
                network_server=True,
            )
        )
        if isinstance(reply, Response):
            return reply
        if reply.status >= 400:
            return _error(reply)
        said = reply.body if isinstance(reply.body, dict) else {}
        ours = said.get("downlinks", [])
        shown = await self._queues.show(admitted.tenant, reply.links, ours)
        held = [item for one in shown.values() for item in one.downlinks]
        return admitted.speech.listed(ours, held)

    def _device(self, admitted: Admitted, device_id: str) -> tuple[str, str, str]:
        """Return the device's name, the integration to leave by, and that of a device which was
        never heard; see docs/downlinks.md.
        """
        book = self._rulebooks().get(admitted.tenant)
        place = admitted.place
        named, only = _integrations(book, place.process, admitted.speech.dialect)
        if not named and place.process_must_be:
            raise MessageError(
                f"there is no integration `{place.process[:100]}`", code="webhook_not_found"
            )
        known = named or only
        template = DEVICE_TEMPLATE
        if book is not None and known:
            template = book.integrations[known].device_template
        if not set(DeviceTemplate.variables(template)) <= _KNOWN:
            # Its devices are named by what the address does not have; it gives the whole name.
            check_device_name(device_id)
            return device_id, named, only
        ids = {"application_id": place.application_id, "device_id": device_id}
        return DeviceTemplate.fill(template, ids), named, only


def _integrations(book: Rulebook | None, process: str, dialect: str) -> tuple[str, str]:
    """Return the integration that the process names, and the only one of the dialect."""
    if book is None:
        return "", ""
    named = process if process in book.integrations else ""
    same = [one.name for one in book.integrations.values() if one.dialect.name == dialect]
    return named, same[0] if len(same) == 1 else ""


def _error(reply: Reply) -> Response:
    """Return an owner's error as `problem` writes one."""
    body = reply.body if isinstance(reply.body, dict) else {}
    error = dict(body.get("error", {}))
    code, message = error.pop("code", "failed"), error.pop("message", "it was refused")
    return problem(reply.status, code, message, **error)


def error_of(response: Response) -> dict[str, Any]:
    """Return the members of a refusal's error: `code`, `message` and what else it says."""
    try:
        said = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return {"code": "error", "message": response.body.decode(errors="replace")}
    error: dict[str, Any] = said.get("error", {}) if isinstance(said, dict) else {}
    return error
