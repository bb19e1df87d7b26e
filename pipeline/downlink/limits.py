"""How much the stage keeps of a device. Everything that grows has a limit here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one device, but for times."""

    history_max: int = 20
    """Ended downlinks that are kept; `downlink.status` has them all."""
    history_near: int = 2
    """Those of them that are loaded with the device, as news mostly is of these; at least 1."""
    windows_max: int = 1_024
    """Requests that got a downlink and are remembered while their network server may repeat them:
    15 minutes for Sigfox, an hour for plain HTTP. Of more, the oldest are forgotten; a repeat of a
    forgotten request is answered empty."""
    answer_grace_ms: int = 5_000
    """The door's report of an answer may take this long after the deadline."""
    idempotency_keys_max: int = 64
    """Of applications' requests whose answers are kept; of more, the oldest are forgotten."""
    idempotency_ms: int = 24 * 3_600_000
    """How long an answer is kept."""
    idempotency_answer_bytes_max: int = 16_384
    """A longer answer is kept without the downlinks' `fields`, and if need be without them."""
