"""The events of The Things Network v2's Data API (MQTT) → one Uplink.

In: a request whose query has the `event` (the topic after `events/`), `app_id` and `dev_id`.
Format: `mqtt/README.md` of TheThingsArchive/ttn.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import MessageError
from pipeline.integrations.dialect import DeviceTemplate
from pipeline.integrations.document import digest, parse_object, time_of
from pipeline.model.downlink import State
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Report, Uplink

_REPORTS = {
    "down/scheduled": State.ACCEPTED,
    "down/sent": State.ACCEPTED,
    "down/acks": State.ACKNOWLEDGED,
    "down/errors": State.FAILED,
}
_ERRORS = ("up/errors", "activations/errors")
EVENTS = ("activations", *_ERRORS, *_REPORTS)
"""The events that say something of a device or a downlink; `create`, `update` and `delete` tell of
the network server's own registry."""
_CONFIG = ("modulation", "data_rate", "counter", "frequency", "power")
"""Of a transmission: frequency in Hz, power in dBm, the frame counter."""
_TEXT_LENGTH_MAX = 500


def read(request: Request, device_template: str) -> Uplink:
    """Return what the event says. MessageError: it is none, or names no device."""
    query = request.query
    event = query["event"]
    if event not in EVENTS:
        raise MessageError(
            f"an event of v2 is one of {', '.join(EVENTS)}", code="field", field="event"
        )
    document = _document(request.body)
    app_id, dev_id = query.get("app_id", ""), query.get("dev_id", "")
    if not dev_id:
        raise MessageError("the topic names no device", code="device_missing", field="dev_id")
    dev_eui = _text(document.get("dev_eui")).upper()
    names = {"application_id": app_id, "device_id": dev_id, "dev_eui": dev_eui}
    received = document.get("metadata")
    time = received.get("time") if type(received) is dict else None
    uplink: dict[str, Any] = {
        "device": DeviceTemplate.fill(device_template, names),
        "time_ms": time_of(time, "metadata.time"),
        "link": Link(application_id=app_id, device_id=dev_id, dev_eui=dev_eui),
    }
    metadata = {"application_id": app_id, "device_id": dev_id}
    if event in _REPORTS:
        return Uplink(type=None, reports=(_report(event, document),), **uplink)
    if event in _ERRORS:
        fields = {"event": event, "error": _text(document.get("error"))}
        service = {**metadata, "service": "errors"}
        return Uplink(type="service_data", fields=fields, metadata=service, **uplink)
    for name in ("app_eui", "dev_addr"):
        if document.get(name):
            metadata[name] = _text(document[name])
    key = digest(f"{app_id}|{dev_id}|{metadata.get('dev_addr', '')}|{time}") if time else ""
    return Uplink(
        type="join",
        dev_eui=dev_eui,
        metadata={**(received if type(received) is dict else {}), **metadata},
        repeat_key=f"join:{key}" if key else "",
        **uplink,
    )


def _document(body: bytes) -> dict[str, Any]:
    """Return the event's JSON. `down/scheduled` and `down/acks` say nothing: null, or no bytes."""
    return {} if body.strip() in (b"", b"null") else parse_object(body)


def _report(event: str, document: dict[str, Any]) -> Report:
    detail: dict[str, Any] = {"event": event}
    reason = ""
    if event == "down/sent":
        detail["transmitted"] = True
        if gateway := _text(document.get("gateway_id")):
            detail["gateway_id"] = gateway
        config = document.get("config")
        if type(config) is dict:
            said = {name: config[name] for name in _CONFIG if type(config.get(name)) in (int, str)}
            detail.update({name: _text(value) or value for name, value in said.items()})
    if event == "down/errors":
        detail["message"] = _text(document.get("error"))
        reason = "network_server"
    return Report(state=_REPORTS[event], reason=reason, detail=detail)


def _text(value: Any) -> str:
    return value[:_TEXT_LENGTH_MAX] if isinstance(value, str) else ""
