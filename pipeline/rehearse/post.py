"""Uplinks to a running Funicular over HTTP: what `funicular send` does.

In: an integration of the rules, and uplinks with their counters.
Out: requests to the integration's door, with its secret; one Posted each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter
from urllib.parse import quote

import httpx
import msgspec

from pipeline.errors import UsageError
from pipeline.integrations.lorawan import USER_AGENT
from pipeline.model.http import Request
from pipeline.rehearse.proof import proof_of
from pipeline.rulebook.book import Integration, Rulebook
from pipeline.rulebook.catalogue import suggest

TIMEOUT_S = 30.0
"""For one request: longer than any integration's answer may take."""
BODY_SHOWN_MAX = 4_096
"""Bytes of an answer that are kept to be shown."""


class Posted(msgspec.Struct, frozen=True):
    """One request and its answer. `status` 0: there was none, `error` says why."""

    counter: int
    status: int
    body: bytes = b""
    content_type: str = ""
    duration_s: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the uplink was taken."""
        return 200 <= self.status < 300


def integration_of(book: Rulebook, name: str) -> Integration:
    """Return an integration by name. UsageError: there is none."""
    found = book.integrations.get(name)
    if found is None:
        hint = suggest(name, book.integrations)
        listed = ", ".join(sorted(book.integrations)) or "none"
        raise UsageError(
            f"{book.folder} has no integration `{name}`: {hint or f'there are {listed}'}",
            code="no_integration",
        )
    return found


def door_of(address: str, integration: Integration) -> str:
    """Return the URL of an integration's door at `address` (`http://127.0.0.1:8080`)."""
    tenant, name = quote(integration.tenant, safe=""), quote(integration.name, safe="")
    return f"{address.rstrip('/')}/in/{tenant}/{name}"


def post(
    integration: Integration,
    address: str,
    uplinks: Iterable[tuple[int, Request]],
    *,
    timeout_s: float = TIMEOUT_S,
    transport: httpx.BaseTransport | None = None,
) -> Iterator[Posted]:
    """Send uplinks with their counters (`samples.samples`) and yield each answer as it comes.

    UsageError: nobody listens at the address; before anything was sent.
    """
    headers, query = proof_of(integration.authentication)
    url = door_of(address, integration)
    try:
        client = httpx.Client(
            timeout=timeout_s,
            transport=transport,
            headers={"user-agent": USER_AGENT},
            trust_env=False,
        )
    except (ValueError, httpx.InvalidURL) as error:
        raise UsageError(f"{address} is no address: {error}", code="address") from None
    with client:
        for place, (number, each) in enumerate(uplinks):
            sent = msgspec.structs.replace(
                each, headers={**each.headers, **headers}, query={**each.query, **query}
            )
            yield _send(client, url, sent, number, first=place == 0)


def _send(client: httpx.Client, url: str, request: Request, counter: int, *, first: bool) -> Posted:
    begun = perf_counter()
    try:
        answer = client.request(
            request.method,
            url,
            params=request.query or None,
            headers={name.encode(): value.encode() for name, value in request.headers.items()},
            content=request.body,
        )
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise UsageError(
            f"`{url}` is no address; write one as http://127.0.0.1:8080", code="address"
        ) from None
    except httpx.ConnectError:
        if first:
            raise UsageError(
                f"nobody listens at {url}; start it with `funicular run`, or name another address",
                code="nobody_listens",
            ) from None
        return _lost(counter, begun, "nobody listens any more")
    except httpx.TimeoutException:
        return _lost(counter, begun, "no answer in time")
    except httpx.HTTPError as error:
        return _lost(counter, begun, f"the connection broke: {type(error).__name__}")
    return Posted(
        counter=counter,
        status=answer.status_code,
        body=answer.content[:BODY_SHOWN_MAX],
        content_type=answer.headers.get("content-type", ""),
        duration_s=perf_counter() - begun,
    )


def _lost(counter: int, begun: float, error: str) -> Posted:
    return Posted(counter=counter, status=0, duration_s=perf_counter() - begun, error=error)
