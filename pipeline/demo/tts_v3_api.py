"""The downlink API of the simulated The Things Stack: its key, its limits, its errors.

In: requests' headers and bodies. Out: downlinks for a queue, or a `Refusal` and its error JSON
(`pkg/errors`, `pkg/ratelimit` and the proto's validation rules of lorawan-stack).
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

QUEUE_MAX = 10_000  # `downlink_queue_capacity`
PAYLOAD_BYTES_MAX = 255
CORRELATION_ID_LENGTH_MAX = 100
_MINUTE_S = 60.0

# name → namespace, gRPC code
_ERRORS = {
    "no_application_rights": ("pkg/auth/rights", 7),
    "invalid_token": ("pkg/auth", 16),
    "rate_limit_exceeded": ("pkg/ratelimit", 8),
    "route_not_found": ("pkg/webhandlers", 5),
    "device_not_found": ("pkg/applicationserver", 5),
    "no_device_session": ("pkg/applicationserver", 9),
    "decode_body": ("pkg/applicationserver/io/web", 3),
    "validation": ("pkg/errors", 3),
    "no_f_port": ("pkg/applicationserver", 3),
    "no_payload": ("pkg/applicationserver", 3),
    "queue_capacity": ("pkg/networkserver", 8),
}
_STATUSES = {3: 400, 5: 404, 7: 403, 8: 429, 9: 400, 16: 401}


class Refusal(Exception):  # noqa: N818 - a verdict, not a fault of this program
    """Why a request is refused; `name` is one of The Things Stack's errors."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


@dataclass
class Downlink:
    """One entry of a queue."""

    payload: bytes
    f_port: int
    f_cnt: int
    confirmed: bool = False
    priority: str = "LOWEST"
    correlation_ids: list[str] = field(default_factory=list)

    def document(self, session_key_id: str) -> dict[str, Any]:
        """Return it as `ApplicationDownlink` in JSON."""
        document: dict[str, Any] = {
            "session_key_id": session_key_id,
            "f_port": self.f_port,
            "f_cnt": self.f_cnt,
            "frm_payload": b64encode(self.payload).decode(),
            "priority": self.priority,
            "correlation_ids": self.correlation_ids,
        }
        if self.confirmed:
            document["confirmed"] = True
        return {name: value for name, value in document.items() if value not in ("", [])}


class TtsV3Api:
    """Admits requests with the key, up to a number a minute, and reads their bodies."""

    def __init__(self, *, key: str, requests_a_minute: int) -> None:
        self._key = key
        self._limit = requests_a_minute
        self._left = requests_a_minute
        self._minute_ends_s = 0.0

    def admit(self, authorization: str) -> None:
        """Refusal: the key is missing or wrong, or there were too many requests."""
        if not authorization:
            raise Refusal("no_application_rights", "no rights for application")
        if not hmac.compare_digest(authorization.encode(), f"Bearer {self._key}".encode()):
            raise Refusal("invalid_token", "invalid token")
        now_s = time.monotonic()
        if now_s >= self._minute_ends_s:
            self._minute_ends_s = now_s + _MINUTE_S
            self._left = self._limit
        if self._left <= 0:
            raise Refusal("rate_limit_exceeded", "rate limit of `as:down:queue` exceeded")
        self._left -= 1

    def limit_headers(self, *, exceeded: bool = False) -> dict[str, str]:
        """Return the headers that tell of the limit."""
        reset = str(max(0, math.ceil(self._minute_ends_s - time.monotonic())))
        headers = {
            "X-Rate-Limit-Limit": str(self._limit),
            "X-Rate-Limit-Available": str(self._left),
            "X-Rate-Limit-Reset": reset,
        }
        if exceeded:
            headers["X-Rate-Limit-Retry"] = reset
        return headers

    def refuse(self, refusal: Refusal) -> web.Response:
        """Return the error JSON."""
        namespace, code = _ERRORS[refusal.name]
        detail = {
            "@type": "type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
            "namespace": namespace,
            "name": refusal.name,
            "message_format": refusal.message,
            "correlation_id": secrets.token_hex(16),
            "code": code,
        }
        body = {
            "code": code,
            "message": f"error:{namespace}:{refusal.name} ({refusal.message})",
            "details": [detail],
        }
        known = refusal.name not in ("no_application_rights", "invalid_token")
        exceeded = refusal.name == "rate_limit_exceeded"
        headers = self.limit_headers(exceeded=exceeded) if known else {}
        return web.json_response(body, status=_STATUSES[code], headers=headers)

    def read(self, operation: str, body: bytes, f_cnt: int, waiting: int) -> list[Downlink]:
        """Return the downlinks of a push or replace, with the counters past `f_cnt`."""
        if operation not in ("push", "replace"):
            raise Refusal("route_not_found", f"route `down/{operation}` not found")
        try:
            asked = orjson.loads(body)
            documents = asked.get("downlinks") or []
            downlinks = [
                _downlink(document, f_cnt + number) for number, document in enumerate(documents, 1)
            ]
        except (ValueError, AttributeError, TypeError) as fault:
            raise Refusal("decode_body", f"decode body: {fault}") from None
        if len(downlinks) + (waiting if operation == "push" else 0) > QUEUE_MAX:
            raise Refusal("queue_capacity", "downlink queue capacity exceeded")
        return downlinks


def _downlink(document: dict[str, Any], f_cnt: int) -> Downlink:
    f_port = document.get("f_port", 0)
    payload = b64decode(document.get("frm_payload", ""), validate=True)
    correlation_ids = list(document.get("correlation_ids", ()))
    if not f_port:
        raise Refusal("no_f_port", "no FPort")
    if not payload:
        raise Refusal("no_payload", "no payload")
    wrong = (
        not 1 <= f_port <= 255
        or f_port == 224
        or len(payload) > PAYLOAD_BYTES_MAX
        or any(len(each) > CORRELATION_ID_LENGTH_MAX for each in correlation_ids)
    )
    if wrong:
        raise Refusal("validation", "invalid `downlinks`: embedded message failed validation")
    return Downlink(
        payload,
        f_port,
        f_cnt,
        confirmed=bool(document.get("confirmed")),
        priority=str(document.get("priority", "LOWEST")),
        correlation_ids=correlation_ids,
    )
