"""Answers that applications' requests got, by their idempotency keys, in the device's state.

In: a request's key and digest. Out: the first one's answer for a second request with the key.
Parts of a key: `idem/<ms>/<hash of the idempotency key>`. They are written with the downlinks in
one step, so that a request has its effect once however often it comes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from pipeline.downlink.limits import Limits
from pipeline.model.event import Idempotency
from pipeline.model.reply import Reply
from pipeline.ports import DeviceState

PREFIX = "idem/"


class Answers:
    """Of one device."""

    def __init__(self, state: DeviceState, key: str, now_ms: int, limits: Limits) -> None:
        self._state = state
        self._key = key
        self._now_ms = now_ms
        self._limits = limits

    def earlier(self, asked: Idempotency) -> Reply | None:
        """Return what the first request with this key was answered; None: this is the first.

        422 where that one was another request: answering it would hide a mistake.
        """
        oldest_ms = self._now_ms - self._limits.idempotency_ms
        wanted = _hash(asked.key)
        for part, stored in self._state.scan(self._key, PREFIX):
            _, made_ms, name = part.split("/", 2)
            if name != wanted or int(made_ms) < oldest_ms:
                continue
            if stored["request"] != asked.request:
                text = "the idempotency key was used for another request; take a new key for each"
                error = {"code": "idempotency_key_reused", "message": text}
                return Reply("", status=422, body={"error": error})
            return Reply("", status=stored["status"], body=stored["body"])
        return None

    def keep(self, asked: Idempotency, reply: Reply) -> None:
        """Keep an answer, and forget those that are too old or too many."""
        parts = [part for part, _ in self._state.scan(self._key, PREFIX)]
        oldest = f"{PREFIX}{self._now_ms - self._limits.idempotency_ms:013d}"
        surplus = len(parts) + 1 - self._limits.idempotency_keys_max
        for number, part in enumerate(parts):
            if number < surplus or part < oldest:
                self._state.delete(self._key, part)
        kept = {
            "request": asked.request,
            "status": reply.status,
            "body": _bounded(reply.body, self._limits.idempotency_answer_bytes_max),
        }
        self._state.put(self._key, f"{PREFIX}{self._now_ms:013d}/{_hash(asked.key)}", kept)


def _bounded(body: Any, bytes_max: int) -> Any:
    """Return an answer as JSON that fits: whole, else without the fields that the asker knows."""
    plain = msgspec.to_builtins(body)
    if len(orjson.dumps(plain)) <= bytes_max:
        return plain
    if isinstance(plain, dict) and isinstance(plain.get("downlinks"), list):
        shorter: Any = {**plain, "downlinks": [_short(each) for each in plain["downlinks"]]}
    else:
        shorter = _short(plain)
    return shorter if len(orjson.dumps(shorter)) <= bytes_max else {}


def _short(downlink: Any) -> Any:
    if not isinstance(downlink, dict):
        return downlink
    return {name: value for name, value in downlink.items() if name not in ("fields", "detail")}


def _hash(key: str) -> str:
    return blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
