"""Signatures by which a receiver knows that a request is ours, unchanged and of now.

In: the id, the second and the body of a request. Out: its headers `webhook-id`,
`webhook-timestamp` and `webhook-signature`. Format: Standard Webhooks 1.0.0, symmetric (`v1`).
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

PREFIX = "whsec_"
KEY_BYTES_MIN = 24
KEY_BYTES_MAX = 64
SECRETS_MAX = 5
"""So many sign at once while receivers change from one to the next."""


def key_of(secret: str) -> bytes:
    """Return the key of `whsec_…`. ValueError: it is none, in words that do not show it."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"a secret for signatures begins with {PREFIX}")
    try:
        text = secret.removeprefix(PREFIX).rstrip("=")
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} must be base64") from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(
            f"what follows {PREFIX} must be base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} random"
            f" bytes, as `openssl rand -base64 32` gives; it is of {len(key)}"
        )
    return key


class Signer:
    """Signs with each of its secrets; a receiver takes the request if it knows one of them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """ValueError: as `key_of`."""
        self._keys = [key_of(secret) for secret in secrets]

    def headers(self, request_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
        """Return the three headers; the same id in each repeat, the second of this attempt."""
        signed = f"{request_id}.{timestamp_s}.".encode() + body
        signatures = [
            f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in self._keys
        ]
        return {
            "webhook-id": request_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": " ".join(signatures),
        }


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _are_keys(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for secret in secrets:
        key_of(secret.get_secret_value())
    return secrets


Secrets = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(_as_list),
    AfterValidator(_are_keys),
    Field(max_length=SECRETS_MAX),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "maxItems": SECRETS_MAX},
            ]
        }
    ),
]
"""The field `sign` of a sink's Config: one secret, or several."""
