"""Options of dialects whose downlinks go to one server's API with one key."""

from __future__ import annotations

import re
from typing import Self

from pydantic import SecretStr, field_validator, model_validator

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Options

_SERVER = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class ServerOptions(Options):
    """Where downlinks go: `server` (https://…) with an `api_key` that may write them.

    Without them the integration takes no downlinks over HTTP.
    """

    server: str = ""
    api_key: SecretStr | None = None

    @field_validator("server")
    @classmethod
    def _is_a_url(cls, server: str) -> str:
        if server and not _SERVER.fullmatch(server):
            raise ValueError("must be a URL as https://lns.example.com, without a query")
        return server.rstrip("/")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if bool(self.server) != (self.api_key is not None):
            raise ValueError("`server` and `api_key` go together: set both or neither")
        return self

    def target(self) -> tuple[str, str]:
        """Return the server and its key. MessageError `no_link`: there are none."""
        if self.api_key is None:
            raise MessageError(
                "the integration's options have no `server` and `api_key` for downlinks",
                code="no_link",
            )
        return self.server, self.api_key.get_secret_value()
