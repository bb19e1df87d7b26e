"""`Idempotency-Key`: a request's header in, the key and a digest of the request out.

The answers are kept by the device's owner (`downlink/idempotency.py`): a second request with the
key gets the first one's answer, however many doors there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from pipeline.errors import MessageError
from pipeline.model.event import Idempotency

HEADER = "idempotency-key"
KEY_LENGTH_MAX = 255


def check_key(headers: Mapping[str, str]) -> str:
    """Return the request's key, empty where it has none. MessageError: it cannot be one."""
    key = headers.get(HEADER, "").strip()
    if HEADER in headers and (not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable()):
        raise MessageError(
            f"Idempotency-Key must have 1 to {KEY_LENGTH_MAX} printable characters",
            code="idempotency_key",
        )
    return key


def idempotency_of(key: str, method: str, path: str, body: bytes) -> Idempotency | None:
    """Return what the owner knows a request by again; None: it has no key."""
    if not key:
        return None
    head = f"{method} {path}\n".encode(errors="surrogateescape")
    return Idempotency(key, blake2b(head + body, digest_size=16).hexdigest())
