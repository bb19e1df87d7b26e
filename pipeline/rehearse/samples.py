"""The uplinks that `funicular send` sends, whatever the transport.

In: an integration of the rules, and a payload for its dialect's sample or a request's body. Out:
requests with their counters, so long apart as the user wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import sleep, time

from pipeline.errors import MessageError, UsageError
from pipeline.model.http import Request
from pipeline.rulebook.book import Integration


def samples(
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
) -> Iterator[tuple[int, Request]]:
    """Yield `count` uplinks, counted from `counter`, and wait `interval_s` between two.

    The uplink is `request` as it is, or else the dialect's sample for `device_id` and `payload`.
    UsageError: the sample cannot be made.
    """
    for number in range(counter, counter + count):
        if number > counter and interval_s > 0:
            wait(interval_s)
        now_ms = round(now_s() * 1_000)
        yield number, request or _sample(integration, device_id, number, payload, now_ms)


def request_of_body(body: bytes, content_type: str = "") -> Request:
    """Return a request with a body from a file; without a content type it is told by its
    beginning.
    """
    if not content_type:
        is_json = body.lstrip()[:1] in (b"{", b"[")
        content_type = "application/json" if is_json else "application/octet-stream"
    return Request(body=body, headers={"content-type": content_type})


def _sample(
    integration: Integration, device_id: str, counter: int, payload: bytes, now_ms: int
) -> Request:
    """Return the dialect's sample of an uplink. UsageError: this device or payload cannot be."""
    try:
        return integration.dialect.sample(device_id, counter, payload, now_ms)
    except MessageError as error:
        raise UsageError(
            f"the dialect {integration.dialect.name} has no such uplink: {error.message}",
            code="sample",
        ) from None
