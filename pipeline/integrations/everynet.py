"""Everynet: messages of its Data API over HTTP. A downlink is the answer to `downlink_request`.

Format: the messages and types pages of ns.docs.everynet.io. The network server asks, within about a
second of an uplink, whether there is something for the device, and keeps nothing itself.

| `type` | becomes |
|---|---|
| `uplink` | uplink; one that says `duplicate` is a repeat |
| `downlink_request` | service_data of the service `downlink_request`: its answer carries the downlink |
| `downlink` | report: the last downlink was transmitted |
| `status_response` | status, `fields` as the network server has them |
| `join_request` | join |
| `error`, `warning`, `info` | service_data of that service |

`metadata`: `device_id` (the EUI), `application_id`, `dev_addr`, `network_id`, `gateway_id`,
`packet_hash`, `packet_id`; of uplinks also `radio` as it came, `frequency` (MHz), `bandwidth` (Hz),
`spreading_factor`, `coding_rate`, `rssi`, `snr`, and `encrypted_payload` where Everynet has no key.
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations import lorawan
from pipeline.integrations.dialect import DeviceTemplate, Options
from pipeline.integrations.document import (
    Name,
    Uint8,
    Uint32,
    bad_field,
    convert,
    digest,
    milliseconds_of,
    parse_object,
)
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Call, Request, Response
from pipeline.model.record import ID_LENGTH_MAX
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Report, Uplink

_TYPES = (
    "uplink", "downlink_request", "downlink", "status_response", "join_request", "error",
    "warning", "info",
)  # fmt: skip
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class EverynetOptions(Options):
    """There is nothing to set: a downlink goes where the request came from."""


class _Meta(msgspec.Struct):
    device: Name | None = None
    application: Name | None = None
    device_addr: Name | None = None
    network: Name | None = None
    gateway: Name | None = None
    packet_hash: Name | None = None
    packet_id: Name | None = None
    time: _Seconds | None = None


class _Params(msgspec.Struct):
    port: Uint8 | None = None
    counter_up: Uint32 | None = None
    counter_down: Uint32 | None = None
    payload: bytes | None = None
    encrypted_payload: str | None = None
    duplicate: bool | None = None
    rx_time: _Seconds | None = None
    radio: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    type: str | None = None
    meta: _Meta | None = None
    params: dict[str, Any] | None = None


class Everynet:
    """The dialect; see the module."""

    name = "everynet"
    synchronous = True
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = ("dev_eui", "application_id", "dev_addr")
    has_f_port = True
    takes_fields = False
    # Duplicates are other gateways' receptions of the same frame, seconds apart.
    repeat_window_s = 15 * 60
    # The network server waits about a second; what comes later misses both receive windows.
    answer_timeout_s = 0.9
    options = EverynetOptions

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one message. MessageError as the port says."""
        message, meta = _parse(request)
        params = convert(message.params or {}, _Params)
        dev_eui = lorawan.eui(meta.device, "meta.device")
        names = {
            "dev_eui": dev_eui,
            "application_id": meta.application or "",
            "dev_addr": meta.device_addr or "",
        }
        made = _made(message, meta, params)
        if made.metadata or made.type:
            metadata = {**_metadata(meta, dev_eui), **made.metadata}
            made = msgspec.structs.replace(made, metadata=metadata)
        uplink = msgspec.structs.replace(
            made,
            device=DeviceTemplate.fill(device_template, names),
            dev_eui=dev_eui.upper(),
            link=Link(device_id=dev_eui, dev_eui=dev_eui.upper()),
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: Any) -> Call:  # noqa: ARG002
        """Raise MessageError `no_link`: a device can only be answered."""
        raise MessageError(
            "Everynet asks for downlinks; the integration must be synchronous", code="no_link"
        )

    def answer(
        self,
        replies: Sequence[Reply],
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
    ) -> Response:
        """Return `downlink_response` with the request's own `meta`, by whose hash the network
        server knows it; 204 where there is nothing.
        """
        carrying = [reply for reply in replies if reply.payload is not None]
        if not carrying:
            return Response(status=204)
        document = parse_object(request.body)
        params: dict[str, Any] = {
            "port": carrying[0].f_port,
            "payload": b64encode(carrying[0].payload or b"").decode(),
        }
        asked = document.get("params")
        if type(asked) is dict and "counter_down" in asked:
            params["counter_down"] = asked["counter_down"]
        body = {"type": "downlink_response", "meta": document.get("meta"), "params": params}
        return Response(
            status=200,
            body=orjson.dumps(body),
            headers={"content-type": "application/json"},
        )

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an uplink. MessageError: the device's id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device")
        seconds = now_ms / 1_000
        body = {
            "type": "uplink",
            "meta": {
                "network": "75697b95",
                "packet_hash": digest(f"{dev_eui}|{counter}|{now_ms}"),
                "application": "70b3d54b17db0106",
                "device_addr": digest(dev_eui)[:8],
                "time": seconds,
                "device": dev_eui,
                "packet_id": digest(f"{dev_eui}|{counter}|{now_ms}|id"),
                "gateway": "7c95bd79864622a4",
            },
            "params": {
                "rx_time": seconds,
                "port": 1,
                "counter_up": counter,
                "payload": b64encode(payload).decode(),
                "encrypted_payload": "",
                "duplicate": False,
                "radio": {
                    "freq": 868.1,
                    "modulation": {
                        "type": "LORA", "bandwidth": 125000, "spreading": 7, "coderate": "4/5",
                    },
                    "hardware": {"rssi": -40 - counter % 60, "snr": 9.5, "channel": 1},
                },
            },
        }  # fmt: skip
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _parse(request: Request) -> tuple[_Message, _Meta]:
    message = convert(parse_object(request.body), _Message)
    if message.type not in _TYPES:
        raise bad_field("type", f"must be one of {', '.join(_TYPES)}")
    if message.meta is None:
        raise MessageError(
            "`meta` is missing: it names the device", code="device_missing", field="meta.device"
        )
    return message, message.meta


def _made(message: _Message, meta: _Meta, params: _Params) -> Uplink:
    time_ms = milliseconds_of(meta.time and meta.time * 1_000)
    told = message.params or {}
    key = _key(message.type or "", meta)
    if message.type == "uplink":
        encrypted = params.encrypted_payload or ""
        return Uplink(
            device=None,
            time_ms=milliseconds_of(params.rx_time and params.rx_time * 1_000) or time_ms,
            payload=b"" if params.payload is None and not encrypted else params.payload,
            f_port=params.port or 0,
            f_cnt=params.counter_up or 0,
            metadata=_radio(params),
            # One frame has one hash, whichever gateway heard it.
            repeat_key=key,
        )
    if message.type == "downlink":
        detail: dict[str, Any] = {"event": "downlink", "transmitted": True}
        if params.counter_down is not None:
            detail["f_cnt"] = params.counter_down
        report = Report(state=State.ACCEPTED, detail=detail)
        return Uplink(device=None, type=None, time_ms=time_ms, reports=(report,), repeat_key=key)
    if message.type == "join_request":
        return Uplink(device=None, type="join", time_ms=time_ms, repeat_key=key)
    if message.type == "status_response":
        return Uplink(device=None, type="status", time_ms=time_ms, fields=told, repeat_key=key)
    return Uplink(
        device=None,
        type="service_data",
        time_ms=time_ms,
        fields=told,
        metadata={"service": message.type},
        repeat_key=key,
        answerable=message.type == "downlink_request",
    )


def _key(kind: str, meta: _Meta) -> str:
    named = meta.packet_hash if kind == "uplink" else meta.packet_id or meta.packet_hash
    if not named:
        return ""
    key = named if kind == "uplink" else f"{kind}:{named}"
    return key if len(key) <= ID_LENGTH_MAX else digest(key)


def _metadata(meta: _Meta, dev_eui: str) -> dict[str, Any]:
    said = {
        "application_id": meta.application,
        "dev_addr": meta.device_addr,
        "network_id": meta.network,
        "gateway_id": meta.gateway,
        "packet_hash": meta.packet_hash,
        "packet_id": meta.packet_id,
    }
    return {"device_id": dev_eui, **{name: value for name, value in said.items() if value}}


def _radio(params: _Params) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if params.encrypted_payload and params.payload is None:
        found["encrypted_payload"] = params.encrypted_payload
    if params.radio is None:
        return found
    found["radio"] = params.radio
    places = (
        (params.radio, {"freq": "frequency"}),
        (
            params.radio.get("modulation"),
            {"bandwidth": "bandwidth", "spreading": "spreading_factor", "coderate": "coding_rate"},
        ),
        (params.radio.get("hardware"), {"rssi": "rssi", "snr": "snr"}),
    )
    for place, names in places:
        if type(place) is dict:
            found.update({ours: place[name] for name, ours in names.items() if name in place})
    return found


DIALECT = Everynet()
