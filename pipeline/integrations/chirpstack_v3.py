"""ChirpStack v3 (Application Server), JSON and «JSON (v3)»: every event in, downlinks by its API or
over MQTT.

Format: `as/integration/integration.proto` of brocaar/chirpstack-api and the events page of the
Application Server. In JSON all EUIs and addresses are base64 and the decoded object is text; in
«JSON (v3)» they are hexadecimal, and it is an object. Both are read.

`up`, `join`, `status`, `location` and `integration` become what they become in the dialect
`chirpstack`; `error` is service_data of the service `error` (`type`, `error`, `f_cnt`), and fails
the downlink whose counter it names; `ack` and `txack` report of a downlink by its frame counter.

`metadata`: `device_id` (the EUI), `device_name`, `application_id`, `application_name`, `tags`,
`dev_addr`, `published_at`; of uplinks also `adr`, `dr`, `frequency` (Hz), `bandwidth` (Hz),
`spreading_factor`, `coding_rate`, `rx_info` and `tx_info` as they came, `gateway_count`, and `rssi`
and `snr` of the gateway that heard it best.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Any

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations import chirpstack_queue, lorawan
from pipeline.integrations.chirpstack import MqttOptions, is_protobuf
from pipeline.integrations.chirpstack_queue import QueueApi, eui_of
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Queued
from pipeline.integrations.document import (
    Name,
    Uint8,
    Uint32,
    bad_field,
    check_depth,
    convert,
    digest,
    parse_object,
    rfc3339,
    time_of,
)
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Call, Request, Response
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Report, Uplink

EVENTS = ("up", "join", "ack", "txack", "error", "status", "location", "integration")


class _Event(msgspec.Struct):
    """The fields of all events; each has some of them. The names are ChirpStack's."""

    applicationID: str | int | None = None  # noqa: N815
    applicationName: Name | None = None  # noqa: N815
    deviceName: Name | None = None  # noqa: N815
    devEUI: Name | None = None  # noqa: N815
    devAddr: Name | None = None  # noqa: N815
    tags: dict[str, Any] | None = None
    publishedAt: str | None = None  # noqa: N815
    adr: bool | None = None
    dr: Uint32 | None = None
    fCnt: Uint32 | None = None  # noqa: N815
    fPort: Uint8 | None = None  # noqa: N815
    confirmedUplink: bool | None = None  # noqa: N815
    data: bytes | None = None
    object: dict[str, Any] | None = None
    objectJSON: str | None = None  # noqa: N815
    rxInfo: list[dict[str, Any]] | None = None  # noqa: N815
    txInfo: dict[str, Any] | None = None  # noqa: N815
    acknowledged: bool | None = None
    type: str | None = None
    error: str | None = None
    margin: int | None = None
    externalPowerSource: bool | None = None  # noqa: N815
    batteryLevelUnavailable: bool | None = None  # noqa: N815
    batteryLevel: float | None = None  # noqa: N815
    location: dict[str, Any] | None = None
    integrationName: str | None = None  # noqa: N815
    eventType: str | None = None  # noqa: N815


class ChirpStackV3(QueueApi, Asynchronous):
    """The dialect; see the module."""

    name = "chirpstack_v3"
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = (
        "dev_eui", "device_name", "application_id", "application_name", "dev_addr",
    )  # fmt: skip
    has_f_port = True
    takes_fields = False
    # As `chirpstack`: it tries once; a proxy or a broker between may repeat for a while.
    repeat_window_s = 15 * 60
    options = MqttOptions

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one event. MessageError as the port says."""
        if is_protobuf(request):
            raise MessageError(
                "ChirpStack sends Protocol Buffers; set the integration's marshaler to JSON",
                code="not_json",
            )
        kind = request.query.get("event", "")
        if kind not in EVENTS:
            raise MessageError(
                "ChirpStack names the event in the query, as ?event=up (or in the topic):"
                f" {', '.join(EVENTS)}; this request does not",
                code="field",
                field="event",
            )
        event = convert(parse_object(request.body), _Event, lax=True)
        dev_eui = lorawan.eui(_hex(event.devEUI), "devEUI")
        device = DeviceTemplate.fill(
            device_template,
            {
                "dev_eui": dev_eui,
                "device_name": event.deviceName or "",
                "application_id": str(event.applicationID or ""),
                "application_name": event.applicationName or "",
                "dev_addr": _hex(event.devAddr),
            },
        )
        made = _MAKERS[kind](event)
        uplink = msgspec.structs.replace(
            made,
            device=device,
            time_ms=_time_ms(event),
            dev_eui=dev_eui.upper(),
            metadata={**_metadata(event, dev_eui), **made.metadata} if made.type else {},
            link=Link(
                application_id=str(event.applicationID or ""),
                device_id=dev_eui,
                dev_eui=dev_eui.upper(),
            ),
            repeat_key=_repeat_key(kind, event, dev_eui),
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: MqttOptions) -> Call:
        """Return the request that enqueues it. v3 flushes by a request of its own, so that
        `replace` is appended like `last`. MessageError `no_link`.
        """
        return chirpstack_queue.enqueue(link, options, {"deviceQueueItem": _item(downlink)})

    def read_queue(self, response: Response) -> list[Queued]:
        """Return what the queue's listing says."""
        return chirpstack_queue.read_v3(response)

    def reference(self, answer: bytes) -> str:
        """Return the frame counter that the downlink got, by which reports name it."""
        return lorawan.reference_in(answer, "fCnt", "f_cnt:")

    def topics(self, options: MqttOptions) -> tuple[str, ...]:
        """Return the filter of all events of all devices."""
        prefix = options.topic_prefix
        return (f"{prefix}application/{options.application_id or '+'}/device/+/event/+",)

    def from_topic(self, topic: str, body: bytes, options: MqttOptions) -> Request | None:
        """Return the request that HTTP would bring; None: the topic is none of an event."""
        parts = topic.removeprefix(options.topic_prefix).split("/")
        if len(parts) != 6 or parts[::2] != ["application", "device", "event"]:
            return None
        return Request(
            body=body, query={"event": parts[5]}, headers={"content-type": "application/json"}
        )

    def publication(self, downlink: Downlink, link: Link, options: MqttOptions) -> Publication:
        """Return the command for the device's queue. MessageError `no_link`."""
        application = link.application_id or options.application_id
        dev_eui = eui_of(link)
        if not application:
            raise MessageError("no uplink has told the device's application yet", code="no_link")
        path = f"application/{topic_level(application)}/device/{topic_level(dev_eui)}/command/down"
        return Publication(topic=options.topic_prefix + path, payload=orjson.dumps(_item(downlink)))

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an `up` event (JSON). MessageError: the device's id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device")
        time = rfc3339(now_ms)
        gateway = {
            "gatewayID": _base64("0303030303030303"),
            "time": time,
            "timeSinceGPSEpoch": None,
            "rssi": -48 - counter % 60,
            "loRaSNR": 9,
            "channel": 5,
            "rfChain": 0,
            "board": 0,
            "antenna": 0,
            "location": {"latitude": 52.3740364, "longitude": 4.9144401, "altitude": 10.5},
            "fineTimestampType": "NONE",
            "context": "9u/uvA==",
            "uplinkID": b64encode(digest(f"{dev_eui}|{counter}|{now_ms}").encode()[:16]).decode(),
        }
        body = {
            "applicationID": "123",
            "applicationName": "sample-application",
            "deviceName": f"sample-{dev_eui[-4:]}",
            "devEUI": _base64(dev_eui),
            "rxInfo": [gateway],
            "txInfo": {
                "frequency": 868100000,
                "modulation": "LORA",
                "loRaModulationInfo": {
                    "bandwidth": 125,
                    "spreadingFactor": 11,
                    "codeRate": "4/5",
                    "polarizationInversion": False,
                },
            },
            "adr": True,
            "dr": 1,
            "fCnt": counter,
            "fPort": 5,
            "data": b64encode(payload).decode(),
            "objectJSON": "",
            "tags": {},
            "confirmedUplink": False,
            "devAddr": _base64(digest(dev_eui)[:8]),
            "publishedAt": time,
        }
        return Request(
            body=orjson.dumps(body),
            query={"event": "up"},
            headers={"content-type": "application/json"},
        )

    def sample_topic(self, device_id: str, options: MqttOptions) -> str:
        """Return the topic that `sample` is published to."""
        application = options.application_id or "123"
        return f"{options.topic_prefix}application/{application}/device/{device_id}/event/up"


def _base64(hexadecimal: str) -> str:
    return b64encode(bytes.fromhex(hexadecimal)).decode()


def _hex(value: str | None) -> str:
    """Return an EUI or address in hexadecimal, lower case, whichever of the two ways it came.

    The base64 of 4 or 8 bytes ends with `=`, which is no hexadecimal digit.
    """
    if not value or not value.endswith("="):
        return (value or "").lower()
    try:
        return b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return value  # that it is no EUI is said where it is checked


def _object(event: _Event) -> dict[str, Any] | None:
    if event.object is not None:
        return event.object
    if not event.objectJSON:
        return None
    text = event.objectJSON.encode(errors="surrogatepass")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise bad_field("objectJSON", "is not JSON") from None
    check_depth(value, text)
    if value is not None and type(value) is not dict:
        raise bad_field("objectJSON", "must be a JSON object")
    return value


def _up(event: _Event) -> Uplink:
    metadata: dict[str, Any] = {}
    for name in ("adr", "dr"):
        value = getattr(event, name)
        if value is not None:
            metadata[name] = value
    if event.txInfo is not None:
        metadata["tx_info"] = event.txInfo
        metadata.update(_radio(event.txInfo))
    if event.rxInfo is not None:
        metadata["rx_info"] = event.rxInfo
        heard = [
            {**gateway, "snr": gateway["loRaSNR"]} if "loRaSNR" in gateway else gateway
            for gateway in event.rxInfo
        ]
        metadata.update(lorawan.best_reception(heard))
    return Uplink(
        device=None,
        payload=event.data or b"",
        fields=_object(event),
        f_port=event.fPort or 0,
        f_cnt=event.fCnt or 0,
        confirmed=bool(event.confirmedUplink),
        metadata=metadata,
    )


def _radio(tx_info: dict[str, Any]) -> dict[str, Any]:
    """Return what rules ask of `txInfo`, flat; ChirpStack v3 has the bandwidth in kHz."""
    found: dict[str, Any] = {}
    if type(tx_info.get("frequency")) is int:
        found["frequency"] = tx_info["frequency"]
    lora = tx_info.get("loRaModulationInfo")
    if type(lora) is dict:
        if type(lora.get("bandwidth")) is int:
            found["bandwidth"] = lora["bandwidth"] * 1000
        for name, ours in (("spreadingFactor", "spreading_factor"), ("codeRate", "coding_rate")):
            if name in lora:
                found[ours] = lora[name]
    return found


def _join(_: _Event) -> Uplink:
    return Uplink(device=None, type="join")


def _ack(event: _Event) -> Uplink:
    state = State.ACKNOWLEDGED if event.acknowledged else State.NOT_ACKNOWLEDGED
    reason = "" if event.acknowledged else "not_acknowledged"
    return _reporting(event, state, reason, {"event": "ack"})


def _txack(event: _Event) -> Uplink:
    return _reporting(event, State.ACCEPTED, "", {"event": "txack", "transmitted": True})


def _reporting(event: _Event, state: State, reason: str, detail: dict[str, Any]) -> Uplink:
    f_cnt = event.fCnt or 0
    report = Report(
        state=state, reference=f"f_cnt:{f_cnt}", reason=reason, detail={**detail, "f_cnt": f_cnt}
    )
    return Uplink(device=None, type=None, reports=(report,))


def _error(event: _Event) -> Uplink:
    kind = (event.type or "UNKNOWN")[:64]
    reports: tuple[Report, ...] = ()
    if kind.startswith("DOWNLINK_") and event.fCnt is not None:
        detail = {"event": "error", "message": event.error or ""}
        reports = _reporting(event, State.FAILED, kind.lower(), detail).reports
    fields: dict[str, Any] = {"type": kind, "error": event.error or ""}
    if event.fCnt is not None:
        fields["f_cnt"] = event.fCnt
    return Uplink(
        device=None,
        type="service_data",
        fields=fields,
        metadata={"service": "error"},
        reports=reports,
    )


def _status(event: _Event) -> Uplink:
    fields: dict[str, Any] = {
        "margin": event.margin or 0,
        "external_power_source": bool(event.externalPowerSource),
    }
    if not event.batteryLevelUnavailable and not event.externalPowerSource:
        fields["battery_level"] = event.batteryLevel or 0.0
    return Uplink(device=None, type="status", fields=fields)


def _location(event: _Event) -> Uplink:
    return Uplink(device=None, type="location", fields=event.location or {})


def _integration(event: _Event) -> Uplink:
    return Uplink(
        device=None,
        type="service_data",
        fields=_object(event) or {},
        metadata={
            "service": event.integrationName or "integration",
            "event_type": event.eventType or "",
        },
    )


_MAKERS = {
    "up": _up,
    "join": _join,
    "ack": _ack,
    "txack": _txack,
    "error": _error,
    "status": _status,
    "location": _location,
    "integration": _integration,
}


def _metadata(event: _Event, dev_eui: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"device_id": dev_eui}
    said = {
        "device_name": event.deviceName,
        "application_id": event.applicationID,
        "application_name": event.applicationName,
        "tags": event.tags,
        "dev_addr": _hex(event.devAddr),
        "published_at": event.publishedAt,
    }
    metadata.update({name: value for name, value in said.items() if value})
    return metadata


def _time_ms(event: _Event) -> int | None:
    if event.publishedAt:
        return time_of(event.publishedAt, "publishedAt")
    for gateway in event.rxInfo or ():
        if gateway.get("time"):
            return time_of(gateway["time"], "rxInfo.time")
    return None


def _repeat_key(kind: str, event: _Event, dev_eui: str) -> str:
    """Return the key of one event: v3 gives none, so it is told apart by its time, or by the
    receptions' own ids. Without both there is no key: twice is better than lost.
    """
    heard = [str(gateway.get("uplinkID") or gateway.get("time")) for gateway in event.rxInfo or ()]
    if not event.publishedAt and not any(said != "None" for said in heard):
        return ""
    content = (kind, dev_eui, event.publishedAt, heard, event.fCnt, event.type)
    return digest(orjson.dumps(content).decode(), event.data or b"")


def _item(downlink: Downlink) -> dict[str, Any]:
    return {
        "confirmed": downlink.confirmed,
        "data": b64encode(downlink.payload or b"").decode(),
        "fPort": downlink.f_port,
    }


DIALECT = ChirpStackV3()
