"""The `server:` of a connection, an address as mqtts://host:8883, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import field_validator

from pipeline.part import Part


class AtServer(Part):
    """A part of a connection's model; `user` and `password` are fields of their own."""

    ports: ClassVar[Mapping[str, int]]
    """Scheme → its usual port; one that ends in `s` is reached over TLS."""
    example: ClassVar[str]
    path: ClassVar[str] = ""
    """Why there is no path; empty: there may be one."""

    server: str

    @field_validator("server")
    @classmethod
    def _is_a_server(cls, server: str) -> str:
        wanted = f"must be an address as {cls.example}"
        try:
            parts = urlsplit(server)
            port = parts.port
        except ValueError:
            raise ValueError(wanted) from None
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"{wanted}; `user` and `password` stand for themselves")
        if parts.scheme not in cls.ports or not parts.hostname or port == 0:
            raise ValueError(wanted)
        if cls.path and parts.path not in {"", "/"}:
            raise ValueError(f"{wanted}, without a path: {cls.path}")
        return server

    @property
    def secure(self) -> bool:
        """Whether it is reached over TLS."""
        return urlsplit(self.server).scheme.endswith("s")

    @property
    def host(self) -> str:
        """The server's name or address."""
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        """The server's port; the scheme's own where none is given."""
        return urlsplit(self.server).port or self.ports[urlsplit(self.server).scheme]
