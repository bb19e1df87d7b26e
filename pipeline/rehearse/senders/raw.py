"""What samples over TCP, UDP and CoAP share: where our own server is, and how a message names its
device there.
"""

from __future__ import annotations

from typing import Any

from pipeline.model.http import Request
from pipeline.rulebook.connections.device_naming import FieldNaming, HeadNaming
from pipeline.rulebook.connections.listener import ListenerConfig

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a server listens on


def address_of(config: ListenerConfig) -> str:
    """Return where to reach a server of this machine."""
    return _EVERYWHERE.get(config.host, config.host)


def body_of(config: Any, device_id: str, request: Request) -> bytes:
    """Return a message's bytes with its device in them, where they name it.

    MessageError: the name does not fit there.
    """
    naming = config.device
    if isinstance(naming, FieldNaming | HeadNaming):
        return naming.write(device_id, config.of(device_id), request.body)
    return request.body
