"""The address of a server, as sinks are told it: `amqps://user@host:5671/virtual-host`."""

from __future__ import annotations

from collections.abc import Container
from urllib.parse import SplitResult, urlsplit

WEB = frozenset({"http", "https"})


def parts_of(url: str, schemes: Container[str], wanted: str) -> SplitResult:
    """Return the parts of a server's address. ValueError `wanted`: it has none of these schemes,
    no host, or a port that there cannot be.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ValueError(wanted)
    return parts
