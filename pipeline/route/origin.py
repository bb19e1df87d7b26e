"""A message → what a delivery says of where its body came from (`model.delivery.Origin`)."""

from __future__ import annotations

from typing import Any

from pipeline.model.delivery import Origin
from pipeline.model.event import DeviceMessage


def origin_of(message: DeviceMessage, known: dict[str, Any]) -> Origin:
    """Return the origin of a message; `known` is what is known of its device."""
    metadata = message.metadata
    return Origin(
        type=message.type,
        integration=message.integration or known.get("integration", ""),
        device_type=message.device_type or known.get("type", ""),
        application_id=_text(metadata.get("application_id")),
        device_id=_text(metadata.get("device_id")),
        dev_eui=message.dev_eui or known.get("dev_eui", ""),
        f_port=message.f_port,
        f_cnt=message.f_cnt,
        confirmed=message.confirmed,
        payload=message.payload,
    )


def _text(value: Any) -> str:
    return value if type(value) is str else ""
