"""How a network server proves itself: an integration's `authentication` against a request.

Secrets are compared as digests, in constant time, whether or not the integration exists.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from secrets import token_bytes

from pipeline.rulebook.book import Authentication

_NOBODY = sha256(token_bytes(32)).digest()  # No request has a secret with this digest.


class Credentials:
    """What one integration expects. Header names of a request are looked up in lower case."""

    __slots__ = ("_expected", "header", "kind", "query")

    def __init__(self, authentication: Authentication) -> None:
        """`header` and `query` say which of a request's parts hold the secret; empty: none."""
        self.kind = authentication.kind
        self.header = self.query = ""
        secret = authentication.secret
        if self.kind == "header":
            self.header = authentication.name.lower()
        elif self.kind == "query":
            self.query = authentication.name
        elif self.kind in ("bearer", "basic"):
            self.header = "authorization"
        if self.kind == "basic":
            secret = f"{authentication.name}:{secret}" if secret else ""
        # An empty secret lets nobody in, as a variable of the environment may be empty.
        self._expected = _digest(secret) if secret else _NOBODY

    def proven(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Return whether the request carries the secret; always True where the kind is `open`."""
        if self.kind == "open":
            return True
        if self.kind == "query":
            shown = query.get(self.query, "")
        else:
            shown = headers.get(self.header, "")
            if self.kind == "bearer":
                shown = _after_scheme(shown, "bearer")
            elif self.kind == "basic":
                shown = _user_and_password(shown)
        return compare_digest(_digest(shown), self._expected)


NO_CREDENTIALS = Credentials(Authentication(kind="bearer"))
"""Stands in where there is no such integration, so that the answer takes as long."""


def _after_scheme(value: str, scheme: str) -> str:
    head, _, tail = value.partition(" ")
    return tail.strip() if head.lower() == scheme else ""


def _user_and_password(value: str) -> str:
    try:
        shown = b64decode(_after_scheme(value, "basic"), validate=True)
    except (binascii.Error, ValueError):
        return ""
    return shown.decode("utf-8", "surrogateescape")


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
