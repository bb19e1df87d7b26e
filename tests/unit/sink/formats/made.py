"""Deliveries as route makes them of what a dialect read: for the tests of formats."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import TypeAdapter

from pipeline.integrations.dialect import dialects
from pipeline.model.delivery import Delivery
from pipeline.model.event import DeviceMessage
from pipeline.model.http import Request
from pipeline.model.uplink import Uplink
from pipeline.route.message import plain
from pipeline.route.origin import origin_of
from pipeline.sink.formats.format import Format, FormatConfig
from pipeline.sink.formats.shaped import Shaped

NOW_MS = 1_790_000_000_000


def shape(format_: Any, delivery: Delivery) -> Shaped:
    """Return what a format, written as in a sink's YAML, makes of a delivery."""
    config: FormatConfig = TypeAdapter(Format).validate_python(format_)
    return config.shape("acme", "app")(delivery)


def read(dialect: str, request: Request) -> Uplink:
    """Return the one uplink that a dialect reads."""
    kind = dialects()[dialect]
    (uplink,) = kind.read(request, kind.options(), kind.device_template)
    return uplink


def message_of(uplink: Uplink, integration: str, **changes: Any) -> DeviceMessage:
    """Return the event that convert makes of an uplink, with the network server's own fields."""
    message = DeviceMessage(
        id="0197-a",
        type=uplink.type or "uplink",
        tenant="acme",
        device=uplink.device or "dev",
        integration=integration,
        time_ms=NOW_MS if uplink.time_ms is None else uplink.time_ms,
        received_ms=NOW_MS,
        device_type="thermostat",
        dev_eui=uplink.dev_eui,
        f_port=uplink.f_port,
        f_cnt=uplink.f_cnt,
        confirmed=uplink.confirmed,
        payload=uplink.payload,
        telemetry=uplink.fields or {},
        metadata=uplink.metadata,
    )
    return msgspec.structs.replace(message, **changes)


def delivery_of(message: DeviceMessage, body: Any = None) -> Delivery:
    """Return what `send` makes of a message: the whole of it, or a body of its own."""
    body = plain(message, {}) if body is None else body
    # Through JSON, as it comes out of the topic.
    made = Delivery(
        "0197-a.s1", "acme", message.device, "app", NOW_MS, body, origin=origin_of(message, {})
    )
    return msgspec.json.decode(msgspec.json.encode(made), type=Delivery)
