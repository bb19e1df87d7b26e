"""One set of values that a device reported; between a converter's result and an event."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Reading(msgspec.Struct, frozen=True):
    """What becomes one event. `time_ms` None: the uplink's own time."""

    device: str
    telemetry: dict[str, Any]
    attributes: dict[str, Any] = {}
    time_ms: int | None = None
    device_kind: Literal["device", "asset"] = "device"
    device_type: str = ""
    customer: str = ""
    group: str = ""
    warnings: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}  # above the uplink's
