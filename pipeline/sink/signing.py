"""Signatures by which a receiver knows that a request is ours, unchanged and of now.

In: the id, the second and the body of a request. Out: its headers `webhook-id`,
`webhook-timestamp` and `webhook-signature`. Format: Standard Webhooks 1.0.0, symmetric (`v1`, one
secret that both sides know) and asymmetric (`v1a`, ed25519: the receiver knows the public key).
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from pipeline.sink.library import check_library

PREFIX = "whsec_"
PREFIX_PRIVATE = "whsk_"
SEED_BYTES = 32
"""Of an ed25519 key, alone, or with the public key's 32 behind it, as some libraries keep it."""
KEY_BYTES_MIN = 24
KEY_BYTES_MAX = 64
SECRETS_MAX = 5
"""So many sign at once while receivers change from one to the next, or to the other kind."""


_Sign = Callable[[bytes], str]


def key_of(secret: str) -> bytes:
    """Return the key of `whsec_…`. ValueError: it is none, in words that do not show it."""
    key = _bytes_of(secret, PREFIX)
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(
            f"what follows {PREFIX} must be base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} random"
            f" bytes, as `openssl rand -base64 32` gives; it is of {len(key)}"
        )
    return key


def _symmetric(secret: str) -> _Sign:
    key = key_of(secret)

    def sign(signed: bytes) -> str:
        return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"

    return sign


def _asymmetric(secret: str) -> _Sign:
    check_library("cryptography", "webhooks", "a signature by ed25519")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - an extra
        Ed25519PrivateKey,
    )

    given = _bytes_of(secret, PREFIX_PRIVATE)
    if len(given) not in (SEED_BYTES, 2 * SEED_BYTES):
        raise ValueError(
            f"what follows {PREFIX_PRIVATE} must be base64 of an ed25519 key: {SEED_BYTES}"
            f" bytes, or {2 * SEED_BYTES} with the public key behind them; it is of {len(given)}"
        )
    key = Ed25519PrivateKey.from_private_bytes(given[:SEED_BYTES])
    if given[SEED_BYTES:] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError(
            f"what follows {PREFIX_PRIVATE} has another key's public part: its last {SEED_BYTES}"
            " bytes are not those of its first"
        )

    def sign(signed: bytes) -> str:
        return f"v1a,{b64encode(key.sign(signed)).decode()}"

    return sign


def _bytes_of(secret: str, prefix: str) -> bytes:
    try:
        text = secret.removeprefix(prefix).rstrip("=")
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {prefix} must be base64") from None


def _signing(secret: str) -> _Sign:
    """Return what signs with a secret. ValueError: it is none, in words that do not show it."""
    if secret.startswith(PREFIX):
        return _symmetric(secret)
    if secret.startswith(PREFIX_PRIVATE):
        return _asymmetric(secret)
    raise ValueError(
        f"a secret for signatures begins with {PREFIX}, or with {PREFIX_PRIVATE} (ed25519)"
    )


class Signer:
    """Signs with each of its secrets; a receiver takes the request if it knows one of them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """ValueError: one of them is none."""
        self._signing = [_signing(secret) for secret in secrets]

    def headers(self, request_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
        """Return the three headers; the same id in each repeat, the second of this attempt."""
        signed = f"{request_id}.{timestamp_s}.".encode() + body
        return {
            "webhook-id": request_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": " ".join(sign(signed) for sign in self._signing),
        }


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _are_keys(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for secret in secrets:
        _signing(secret.get_secret_value())
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
