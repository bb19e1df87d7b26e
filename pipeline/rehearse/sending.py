"""Sample uplinks to an integration that is not posted to: `funicular send` over its transport.

In: an integration with a connection, a device, uplinks with their counters. Out: one Posted each,
whose status 200 says that the other side has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from time import perf_counter

from pipeline.errors import UsageError
from pipeline.model.http import Request
from pipeline.rehearse.post import Posted
from pipeline.rehearse.senders.sender import NotSentError, sender_of
from pipeline.rulebook.book import Integration


def send_samples(
    integration: Integration, device_id: str, uplinks: Iterable[tuple[int, Request]]
) -> Iterator[Posted]:
    """Send uplinks with their counters (`samples.samples`) and yield what became of each.

    UsageError: the other side cannot be reached, before anything was sent; or it cannot be sent.
    """
    send = sender_of(integration.transport)
    for place, (number, each) in enumerate(uplinks):
        begun = perf_counter()
        try:
            shown = asyncio.run(send(integration, device_id, each))
        except NotSentError as error:
            if place == 0:
                raise UsageError(str(error), code="nobody_listens") from None
            yield Posted(number, 0, duration_s=perf_counter() - begun, error=str(error))
            continue
        yield Posted(number, 200, shown, duration_s=perf_counter() - begun)
