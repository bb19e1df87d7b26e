"""ChirpStack's events (JSON) → one Uplink; the dialect in `chirpstack` says what becomes what."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations.document import (
    Name,
    Uint8,
    Uint32,
    bad_field,
    convert,
    digest,
    parse_object,
    time_of,
)
from pipeline.integrations.lorawan import best_reception, eui
from pipeline.model.downlink import State
from pipeline.model.record import ID_LENGTH_MAX
from pipeline.model.uplink import Link, MessageType, Report, Uplink

EVENTS = ("up", "join", "ack", "txack", "log", "status", "location", "integration")
_LOG_CODE_LENGTH_MAX = 64


class DeviceInfo(msgspec.Struct, rename="camel"):
    """`deviceInfo`."""

    tenant_id: Name | None = None
    tenant_name: Name | None = None
    application_id: Name | None = None
    application_name: Name | None = None
    device_profile_id: Name | None = None
    device_profile_name: Name | None = None
    device_name: Name | None = None
    dev_eui: Name | None = None
    device_class_enabled: str | None = None
    tags: dict[str, Any] | None = None


class Event(msgspec.Struct, rename="camel"):
    """The fields of all events; each has some of them, and what it has is never null."""

    device_info: DeviceInfo | None = None
    deduplication_id: str | None = None
    time: str | None = None
    dev_addr: str | None = None
    adr: bool | None = None
    dr: Uint32 | None = None
    f_cnt: Uint32 | None = None
    f_port: Uint8 | None = None
    confirmed: bool | None = None
    data: bytes | None = None
    object: dict[str, Any] | None = None
    rx_info: list[dict[str, Any]] | None = None
    tx_info: dict[str, Any] | None = None
    relay_rx_info: dict[str, Any] | None = None
    region_config_id: str | None = None
    queue_item_id: str | None = None
    acknowledged: bool | None = None
    f_cnt_down: Uint32 | None = None
    downlink_id: Uint32 | None = None
    gateway_id: str | None = None
    level: str | None = None
    code: str | None = None
    description: str | None = None
    context: dict[str, Any] | None = None
    margin: int | None = None
    external_power_source: bool | None = None
    battery_level_unavailable: bool | None = None
    battery_level: float | None = None
    location: dict[str, Any] | None = None
    integration_name: str | None = None
    event_type: str | None = None


class Told(msgspec.Struct, frozen=True):
    """A checked event of `kind`, of the device `dev_eui` (lower case)."""

    kind: str
    event: Event
    info: DeviceInfo
    dev_eui: str
    time_ms: int | None


def parse(kind: str, body: bytes) -> Told:
    """Return the event. MessageError: it is none, of an unknown kind, or names no device."""
    if kind not in EVENTS:
        said = f"`{kind[:40]}` is none of them" if kind else "this request says none"
        raise MessageError(
            f"ChirpStack names the event in the query, as ?event=up (or in the topic):"
            f" {', '.join(EVENTS)}; {said}",
            code="field",
            field="event",
        )
    event = convert(parse_object(body), Event, lax=True)
    info = event.device_info
    if info is None:
        raise MessageError(
            "`deviceInfo` is missing: it names the device (ChirpStack v3 has the dialect"
            " chirpstack_v3)",
            code="device_missing",
            field="deviceInfo.devEui",
        )
    return Told(
        kind=kind,
        event=event,
        info=info,
        dev_eui=eui(info.dev_eui, "deviceInfo.devEui"),
        time_ms=time_of(event.time, "time"),
    )


def uplink_of(told: Told, device: str) -> Uplink:
    """Return what the event says, for `device`."""
    made = _MAKERS[told.kind](told)
    return msgspec.structs.replace(
        made,
        device=device,
        time_ms=told.time_ms,
        dev_eui=told.dev_eui.upper(),
        metadata={**_device_metadata(told), **made.metadata} if made.type else {},
        link=Link(
            application_id=told.info.application_id or "",
            device_id=told.dev_eui,
            dev_eui=told.dev_eui.upper(),
        ),
        repeat_key=_repeat_key(told),
    )


def _up(told: Told) -> Uplink:
    event = told.event
    metadata: dict[str, Any] = {}
    for name in ("adr", "dr", "relay_rx_info"):
        value = getattr(event, name)
        if value is not None:
            metadata[name] = value
    if event.tx_info is not None:
        metadata["tx_info"] = event.tx_info
        metadata.update(radio(event.tx_info))
    if event.rx_info is not None:
        metadata["rx_info"] = event.rx_info
        metadata.update(best_reception(event.rx_info))
    return Uplink(
        device=None,
        payload=event.data or b"",
        fields=event.object,
        f_port=event.f_port or 0,
        f_cnt=event.f_cnt or 0,
        confirmed=bool(event.confirmed),
        metadata=metadata,
    )


def _join(_: Told) -> Uplink:
    return Uplink(device=None, type="join")


def _ack(told: Told) -> Uplink:
    state = State.ACKNOWLEDGED if told.event.acknowledged else State.NOT_ACKNOWLEDGED
    reason = "" if told.event.acknowledged else "not_acknowledged"
    return Uplink(device=None, type=None, reports=(_report(told, state, reason),))


def _txack(told: Told) -> Uplink:
    report = _report(told, State.ACCEPTED, "", transmitted=True)
    return Uplink(device=None, type=None, reports=(report,))


def _report(told: Told, state: State, reason: str, **more: Any) -> Report:
    event = told.event
    detail: dict[str, Any] = {"event": told.kind, **more}
    if event.f_cnt_down is not None:
        detail["f_cnt"] = event.f_cnt_down
    if event.gateway_id:
        detail["gateway_id"] = event.gateway_id
    return Report(
        state=state,
        reference=_reference(event.queue_item_id, "queueItemId"),
        reason=reason,
        detail=detail,
    )


def _reference(value: Any, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= ID_LENGTH_MAX:
        raise bad_field(field, "must be the id of a queue item")
    return value


def _log(told: Told) -> Uplink:
    """A log entry is the network server's word on the device; some of them end a downlink."""
    event = told.event
    context = event.context or {}
    code = (event.code or "UNKNOWN")[:_LOG_CODE_LENGTH_MAX]
    reports: tuple[Report, ...] = ()
    if event.level == "ERROR" and context.get("queue_item_id"):
        detail = {"event": "log", "message": event.description or ""}
        reference = _reference(context["queue_item_id"], "context.queue_item_id")
        report = Report(state=State.FAILED, reference=reference, reason=code.lower(), detail=detail)
        reports = (report,)
    fields = {
        "level": event.level or "INFO",
        "code": code,
        "description": event.description or "",
        "context": context,
    }
    return _service("log", fields, reports)


def _integration(told: Told) -> Uplink:
    event = told.event
    uplink = _service(event.integration_name or "integration", event.object or {}, ())
    return msgspec.structs.replace(
        uplink, metadata={**uplink.metadata, "event_type": event.event_type or ""}
    )


def _service(service: str, fields: dict[str, Any], reports: tuple[Report, ...]) -> Uplink:
    kind: MessageType = "service_data"
    return Uplink(
        device=None, type=kind, fields=fields, metadata={"service": service}, reports=reports
    )


def _status(told: Told) -> Uplink:
    event = told.event
    fields: dict[str, Any] = {
        "margin": event.margin or 0,
        "external_power_source": bool(event.external_power_source),
    }
    if not event.battery_level_unavailable and not event.external_power_source:
        fields["battery_level"] = event.battery_level or 0.0
    return Uplink(device=None, type="status", fields=fields)


def _location(told: Told) -> Uplink:
    return Uplink(device=None, type="location", fields=told.event.location or {})


_MAKERS = {
    "up": _up,
    "join": _join,
    "ack": _ack,
    "txack": _txack,
    "log": _log,
    "status": _status,
    "location": _location,
    "integration": _integration,
}


def _device_metadata(told: Told) -> dict[str, Any]:
    metadata: dict[str, Any] = {"device_id": told.dev_eui}
    for name in DeviceInfo.__struct_fields__:
        value = getattr(told.info, name)
        if value and name != "dev_eui":
            metadata[name] = value
    for name in ("deduplication_id", "dev_addr", "region_config_id"):
        value = getattr(told.event, name)
        if value:
            metadata[name] = value
    return metadata


def radio(tx_info: dict[str, Any]) -> dict[str, Any]:
    """Return what rules ask of `txInfo`, flat: frequency in Hz, LoRa's parameters."""
    found: dict[str, Any] = {}
    frequency = tx_info.get("frequency")
    if type(frequency) is int:
        found["frequency"] = frequency
    modulation = tx_info.get("modulation")
    lora = modulation.get("lora") if type(modulation) is dict else None
    if type(lora) is dict:
        for name, ours in (("bandwidth", "bandwidth"), ("spreadingFactor", "spreading_factor")):
            if name in lora:
                found[ours] = lora[name]
        rate = lora.get("codeRate")
        if isinstance(rate, str):
            found["coding_rate"] = rate.removeprefix("CR_").replace("_", "/")
    return found


def _repeat_key(told: Told) -> str:
    """Return the key of one event: an uplink and the acknowledgement that it brought have one
    deduplication id. Events without one are told apart by all that they say.
    """
    event = told.event
    if event.deduplication_id:
        kind = "" if told.kind == "up" else f"{told.kind}:"
        key = kind + event.deduplication_id
        return key if len(key) <= ID_LENGTH_MAX else digest(key)
    if not event.time:
        return ""
    content = (told.dev_eui, event.time, event.queue_item_id, event.downlink_id, event.code)
    return f"{told.kind}:{digest(orjson.dumps(content).decode())}"
