"""The network servers' own queues of a device, asked for when somebody wants to see them.

In: the ways to the network servers, as the device's owner told them. Out: their queues, or why
one cannot be shown. Calls leave by what wiring hands in; a dialect makes and reads them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.errors import MessageError, RetryableError
from pipeline.integrations.dialect import Queued, QueueDialect
from pipeline.model.http import Call, Response
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Rulebooks

Outward = Callable[[Call], Awaitable[Response]]
"""Makes a request and returns its answer, whatever the status. RetryableError: there was none.
MessageError: the request cannot be made."""


class Shown(msgspec.Struct, omit_defaults=True):
    """One network server's queue; `error` says in a sentence why it is not shown."""

    downlinks: list[Queued] = []
    error: str = ""


class NetworkQueues:
    """Asks network servers. Without `outward` it says that it cannot."""

    def __init__(self, rulebooks: Rulebooks, outward: Outward | None) -> None:
        self._rulebooks = rulebooks
        self._outward = outward

    async def show(
        self, tenant: str, links: Mapping[str, Link], downlinks: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Shown]:
        """Return each network server's queue of a device, by integration. `downlinks` are ours, as
        the device's owner tells them: what a network server calls so is one of them.
        """
        names = sorted(links)
        shown = await asyncio.gather(*(self._one(tenant, name, links[name]) for name in names))
        for name, one in zip(names, shown, strict=True):
            one.downlinks = _recognised(one.downlinks, name, downlinks)
        return dict(zip(names, shown, strict=True))

    async def _one(self, tenant: str, name: str, link: Link) -> Shown:
        book = self._rulebooks().get(tenant)
        integration = book.integrations.get(name) if book else None
        if integration is None:
            return Shown(error="the rules have no such integration any more")
        dialect: Any = integration.dialect
        if not isinstance(dialect, QueueDialect):
            return Shown(error=f"{integration.dialect.name} does not show a device's queue")
        if self._outward is None:
            return Shown(error="this process makes no requests to network servers")
        try:
            answer = await self._outward(dialect.ask_queue(link, integration.options))
            if not 200 <= answer.status < 300:
                return Shown(error=f"the network server answered {answer.status}")
            return Shown(downlinks=dialect.read_queue(answer))
        except (MessageError, RetryableError) as error:
            return Shown(error=error.message)


def _recognised(
    held: list[Queued], integration: str, downlinks: Sequence[Mapping[str, Any]]
) -> list[Queued]:
    """Return what a network server holds, with our ids where it has its own names for ours."""
    ours: dict[str, str] = {}
    for one in downlinks:  # the newest first: a frame counter may have begun anew
        reference = one.get("detail", {}).get("reference")
        if reference and one.get("integration") == integration:
            ours.setdefault(reference, one["id"])
    return [
        msgspec.structs.replace(item, ours=ours[item.reference])
        if not item.ours and item.reference in ours
        else item
        for item in held
    ]
