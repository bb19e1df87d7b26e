"""The API of a running Funicular, for the commands: a method and a path in, its JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from pipeline.errors import FunicularError, UsageError
from pipeline.integrations.lorawan import USER_AGENT

TIMEOUT_S = 30.0
"""For one request: longer than any command waits for its device's owner."""


class RemoteError(FunicularError):
    """The API said no; `status` is HTTP's, `code` and the sentence are the API's."""

    code = "remote"

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message, code=code)
        self.status = status


class Remote:
    """One running Funicular. `key` is a key of its API, which is never shown; empty: none."""

    def __init__(
        self,
        address: str,
        key: str = "",
        transport: httpx.BaseTransport | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """UsageError: the address is none. `timeout_s` is for one request."""
        self.address = address.rstrip("/")
        headers = {"user-agent": USER_AGENT}
        if key:
            headers["authorization"] = f"Bearer {key}"
        try:
            self._client = httpx.Client(
                base_url=self.address,
                timeout=timeout_s,
                headers=headers,
                trust_env=False,
                transport=transport,
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError(f"{address} is no address: {error}", code="address") from None

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the answer's JSON. RemoteError: it is an error. UsageError: nobody listens, or
        the key may not do this.
        """
        try:
            answer = self._client.request(
                method,
                path,
                params={name: value for name, value in (query or {}).items() if value},
                content=None if body is None else orjson.dumps(body),
                headers=dict(headers or {}),
            )
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise UsageError(
                f"{self.address} is no address; write one as http://127.0.0.1:8080", code="address"
            ) from None
        except httpx.ConnectError:
            raise UsageError(
                f"nobody listens at {self.address}; start it with `funicular run`, or name another"
                " address by --to",
                code="nobody_listens",
            ) from None
        except httpx.HTTPError as error:
            raise RemoteError(
                f"no answer from {self.address}: {type(error).__name__}", status=0, code="no_answer"
            ) from None
        return _json(answer)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def device_path(tenant: str, device: str, *more: str) -> str:
    """Return the API's path of a device, and of what is below it."""
    tail = "".join(f"/{quote(part, safe='')}" for part in more)
    return f"/api/v1/tenants/{quote(tenant, safe='')}/devices/{quote(device, safe='')}{tail}"


def _json(answer: httpx.Response) -> Any:
    try:
        said = orjson.loads(answer.content) if answer.content else {}
    except orjson.JSONDecodeError:
        said = {}
    if answer.status_code < 400:
        return said
    error = said.get("error", {}) if isinstance(said, dict) else {}
    code = error.get("code", f"status_{answer.status_code}")
    message = error.get("message") or f"the answer was {answer.status_code}"
    if not error and isinstance(said, dict) and said.get("reason"):
        code = said["reason"]
        message = said.get("detail", {}).get("message") or code
    if answer.status_code in (401, 403):
        raise UsageError(f"{message} (--key, or FUNICULAR_KEY)", code=code)
    raise RemoteError(message, status=answer.status_code, code=code)
