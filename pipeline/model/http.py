"""HTTP as dialects see it: what came in, what is answered, what is to be called."""

from __future__ import annotations

import msgspec

SOURCE_KEY = "funicular-source-key"
"""The header by which a source tells a message from all others that it brings: the same when it
brings one again. Where a dialect has no repeat key of its own for a message, this is it."""


class Request(msgspec.Struct, frozen=True):
    """What arrived at a door, whatever the transport. Header names are lower case."""

    body: bytes
    method: str = "POST"
    query: dict[str, str] = {}
    headers: dict[str, str] = {}


class Response(msgspec.Struct, frozen=True):
    """What the door answers, or what a network server answered. Header names are lower case."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}


class Call(msgspec.Struct, frozen=True):
    """A request that a sink is to make. `url` and `headers` may hold secrets; they are never
    logged.
    """

    url: str
    body: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = {}
