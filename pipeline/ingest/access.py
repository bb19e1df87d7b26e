"""Who may use the API and the metrics: a request's key, or its place, in; a name or a refusal out.

With no key configured the API serves this machine only: the server must listen on loopback, and
the request must come from here and not through a proxy or a web page of somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline.model.http import Response

from .keys import Key, KeyStore, Right
from .problem import problem

LOCAL = "local"
"""Who a request is from that needed no key."""

# A reverse proxy on this machine makes everybody's request come from loopback.
_FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
_UNKNOWN_KEY = problem(
    401,
    "unauthorized",
    "the API needs a key that is in force: Authorization: Bearer fk_…, or X-Api-Key: fk_…",
    headers={"www-authenticate": 'Bearer realm="funicular"'},
)
_NO_KEYS = problem(
    403,
    "no_keys",
    "no key is configured, so the API is for this machine only; make one with"
    " `funicular keys create`",
)


class Known(NamedTuple):
    """Who asks, and of which tenant; empty: no key says it."""

    by: str
    tenant: str


class Access:
    """Decides by the keys. `host` is the address that the server listens on."""

    def __init__(self, keys: KeyStore, host: str) -> None:
        self._keys = keys
        self._bound_to_loopback = is_loopback(host)

    def check(
        self, headers: Mapping[str, str], peer: str, tenant: str, right: Right
    ) -> str | Response:
        """Return who asks (`key <id>`, or LOCAL) if they may; else the refusal, 401 or 403."""
        if not self._keys.configured:
            local = self._bound_to_loopback and is_local(headers, peer)
            return LOCAL if local else _NO_KEYS
        key = self._key(headers)
        if key is None:
            return _UNKNOWN_KEY
        if key.tenant != tenant:
            return problem(403, "forbidden", f"this key is not of tenant {tenant[:100]!r}")
        return _with_right(key, right)

    def identify(
        self, headers: Mapping[str, str], peer: str, rights: tuple[Right, ...], shown: str = ""
    ) -> Known | Response:
        """Return who asks where the address names no tenant, but the key: `shown`, or that of the
        headers. The key needs one of `rights`. Without any key configured: LOCAL, of no tenant.
        """
        if not self._keys.configured:
            local = self._bound_to_loopback and is_local(headers, peer)
            return Known(LOCAL, "") if local else _NO_KEYS
        key = self._keys.find(shown.strip()) if shown else self._key(headers)
        if key is None:
            return _UNKNOWN_KEY
        for right in rights:
            if right in key.rights:
                return Known(f"key {key.id}", key.tenant)
        return problem(403, "forbidden", f"this key has no right to {rights[0]}", right=rights[0])

    def check_metrics(self, headers: Mapping[str, str], peer: str) -> str | Response:
        """Likewise for `/metrics`, which this machine may always read, and any key that reads."""
        if is_local(headers, peer):
            return LOCAL
        if not self._keys.configured:
            return _NO_KEYS
        key = self._key(headers)
        return _UNKNOWN_KEY if key is None else _with_right(key, "read")

    def _key(self, headers: Mapping[str, str]) -> Key | None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = headers.get("x-api-key", "")
        return self._keys.find(shown.strip())


def _with_right(key: Key, right: Right) -> str | Response:
    if right in key.rights:
        return f"key {key.id}"
    return problem(403, "forbidden", f"this key has no right to {right}", right=right)


def is_local(headers: Mapping[str, str], peer: str) -> bool:
    """Return whether a request began on this machine, as far as it can be seen.

    A page of the web can make a browser here send requests: by another origin, or by a name of
    its own that it points to 127.0.0.1; so Host and Origin must be loopback too.
    """
    if not is_loopback(peer) or any(name in headers for name in _FORWARDED):
        return False
    if not is_loopback(_host_of(f"//{headers.get('host', 'localhost')}")):
        return False
    origin = headers.get("origin")
    return origin is None or is_loopback(_host_of(origin))


def is_loopback(host: str) -> bool:
    """Return whether an address, or the name `localhost`, means this machine only."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
