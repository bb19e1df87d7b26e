"""A device's bytes without an envelope → the request that dialects read.

`query.device` is whose they are, where the connection says it, `query.peer` where they came from.
"""

from __future__ import annotations

from typing import Any

from pipeline.model.http import Request
from pipeline.rulebook.connections.device_naming import FieldNaming, HeadNaming, Named
from pipeline.rulebook.connections.listener import DEVICE

WRONG_TOKEN = "messages with a wrong token, or without one"  # noqa: S105 - a reason, no secret


def named(naming: object, message: bytes, address: str, *, token: bool) -> Named:
    """Return whose a message is, where the message or its address says it."""
    if isinstance(naming, FieldNaming):
        return naming.read(message)
    if isinstance(naming, HeadNaming):
        return naming.read(message, token=token)
    return Named(address if naming == "peer" else "", "", message)


def request_of(body: bytes, device: str, peer: str) -> Request:
    """Return a message as it goes on."""
    query = {DEVICE: device, "peer": peer} if device else {"peer": peer}
    return Request(body=body, query=query)


def address_text(address: tuple[Any, ...]) -> str:
    """Return an address as people write it: host and port come first in it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
