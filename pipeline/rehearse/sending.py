"""Sample uplinks to an integration that is not posted to: `funicular send` over its transport.

In: an integration with a connection, a device, a payload. Out: one Posted each, whose status 200
says that the other side has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import perf_counter, sleep, time

from pipeline.errors import UsageError
from pipeline.model.http import Request
from pipeline.rehearse.post import Posted, sample_of
from pipeline.rehearse.senders.sender import NotSentError, sender_of
from pipeline.rulebook.book import Integration


def send_samples(
    integration: Integration,
    *,
    device_id: str = "",
    payload: bytes = b"",
    request: Request | None = None,
    count: int = 1,
    counter: int = 1,
    interval_s: float = 0.0,
    now_s: Callable[[], float] = time,
    wait: Callable[[float], None] = sleep,
) -> Iterator[Posted]:
    """Send `count` uplinks, `interval_s` apart, and yield what became of each.

    As `post.post`: `request`'s body as it is, or the dialect's sample. UsageError: the other side
    cannot be reached, before anything was sent; or the sample cannot be made or sent.
    """
    send = sender_of(integration.transport)
    for number in range(counter, counter + count):
        if number > counter and interval_s > 0:
            wait(interval_s)
        each = request or sample_of(integration, device_id, number, payload, round(now_s() * 1_000))
        begun = perf_counter()
        try:
            shown = asyncio.run(send(integration, device_id, each))
        except NotSentError as error:
            if number == counter:
                raise UsageError(str(error), code="nobody_listens") from None
            yield Posted(number, 0, duration_s=perf_counter() - begun, error=str(error))
            continue
        yield Posted(number, 200, shown, duration_s=perf_counter() - begun)
