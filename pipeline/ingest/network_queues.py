"""The network servers' own queues of a device, asked for when somebody wants to see them.

In: the ways to the network servers, as the device's owner told them. Out: their queues, or why
one cannot be shown. Calls leave by what wiring hands in; a dialect makes and reads them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
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

    async def show(self, tenant: str, links: Mapping[str, Link]) -> dict[str, Shown]:
        """Return each network server's queue of a device, by integration."""
        names = sorted(links)
        shown = await asyncio.gather(*(self._one(tenant, name, links[name]) for name in names))
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
