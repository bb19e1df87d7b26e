"""What formats are given and what they make: a delivery in, bytes with what is said about them out.

A body is the whole message (what `send` gives by default) or whatever a chain made of it; the
formats of network servers take telemetry and radio from the whole message, and what a chain made
as the decoded payload.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from pipeline.errors import MessageError
from pipeline.integrations.document import rfc3339
from pipeline.model.delivery import Delivery, Origin
from pipeline.part import Part

JSON = "application/json"
_WHOLE = frozenset({"id", "type", "time", "telemetry", "metadata"})
_NO_ORIGIN = Origin()
_encoder = msgspec.json.Encoder()


class Shaped(msgspec.Struct, frozen=True):
    """A delivery as it leaves.

    `attributes` are CloudEvents' in binary mode, without a prefix: each transport has its own way
    to carry them. `headers` are for HTTP alone, names in lower case; they may hold secrets.
    """

    body: bytes
    content_type: str = JSON
    attributes: dict[str, str] = {}
    headers: dict[str, str] = {}


Shape = Callable[[Delivery], Shaped]
"""Makes what leaves of a delivery. MessageError: it cannot be made of this one (code `format`,
`too_deep`), or an expression failed on it."""


class FormatPart(Part):
    """A mapping below `format:`; it makes the Shape of one destination."""

    def shape(self, tenant: str, destination: str) -> Shape:
        """Return the function that makes what leaves."""
        raise NotImplementedError


def encode(value: Any) -> bytes:
    """Return a JSON value as text. MessageError (`too_deep`): nested too deeply."""
    try:
        return _encoder.encode(value)
    except RecursionError:
        raise MessageError("the body is nested too deeply for JSON", code="too_deep") from None


def origin_of(delivery: Delivery) -> Origin:
    """Return its origin; an empty one where it has none (written before there were any)."""
    return delivery.origin or _NO_ORIGIN


def whole_message(delivery: Delivery) -> dict[str, Any] | None:
    """Return the body where it is the whole message, None where a chain made another."""
    body = delivery.body
    return body if type(body) is dict and body.keys() >= _WHOLE else None


def time_text(delivery: Delivery) -> str:
    """Return the message's time, the delivery's where the body does not say, as RFC 3339 text."""
    whole = whole_message(delivery)
    if whole is not None and type(whole["time"]) is str:
        return str(whole["time"])
    return rfc3339(delivery.time_ms)


def time_ms(delivery: Delivery) -> int:
    """Return `time_text` as epoch milliseconds; the delivery's own where it cannot be read."""
    whole = whole_message(delivery)
    if whole is not None:
        try:
            return round(datetime.fromisoformat(whole["time"]).timestamp() * 1_000)
        except (TypeError, ValueError):
            return delivery.time_ms
    return delivery.time_ms
