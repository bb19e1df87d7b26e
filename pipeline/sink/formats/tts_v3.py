"""Format `tts_v3`: the JSON of The Things Stack v3's webhooks (`ApplicationUp`).

Format: `api/ttn/lorawan/v3/messages.proto` of TheThingsNetwork/lorawan-stack in its own JSON: zero
values are left out, EUIs are upper case, frequencies are text, times RFC 3339. An uplink is
`uplink_message`, a join `join_accept`, a location `location_solved`; whatever else is
`service_data`, of the service that the message names or of `funicular.<type>`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from pydantic import Field

from pipeline.integrations.dialect import path_segment
from pipeline.model.delivery import Delivery, Origin
from pipeline.sink.formats.back import BackPart, ids_of
from pipeline.sink.formats.radio import Gateway, Radio, radio_of
from pipeline.sink.formats.shaped import (
    JSON,
    Shape,
    Shaped,
    encode,
    origin_of,
    time_text,
    whole_message,
)

_AS_THEY_ARE = (
    "session_key_id", "decoded_payload_warnings", "normalized_payload",
    "normalized_payload_warnings", "last_a_f_cnt_down", "consumed_airtime", "packet_error_rate",
    "locations",
)  # fmt: skip
_VERSION_IDS = ("brand_id", "model_id", "hardware_version", "firmware_version", "band_id")
_NETWORK_IDS = ("net_id", "ns_id", "tenant_id", "cluster_id", "cluster_address")


class TtsV3Format(BackPart):
    """`format: tts_v3`, or with the way back for downlinks, as webhooks with an API key had it:

    ```yaml
    format:
      tts_v3:
        url: https://funicular.example.com
        key: ${env:WEB_PROCESS_KEY}    # of `funicular keys create`, with the right downlink
        webhook: ""                    # default: the integration that the uplink came by
    ```
    Over HTTP the headers `X-Downlink-Apikey`, `X-Downlink-Push` and `X-Downlink-Replace` then say
    where downlinks go.
    """

    webhook: str = Field(default="", max_length=64)

    def shape(self, tenant: str, destination: str) -> Shape:  # noqa: ARG002 - the port's shape
        """See `FormatPart.shape`."""

        def shape(delivery: Delivery) -> Shaped:
            application, device = ids_of(delivery, destination)
            body = encode(_up(delivery, application, device))
            if not self.url:
                return Shaped(body)
            hook = self.webhook or origin_of(delivery).integration or destination
            return Shaped(body, JSON, headers=self._headers(application, hook, device))

        return shape

    def _headers(self, application: str, hook: str, device: str) -> dict[str, str]:
        place = (
            f"{self.url.rstrip('/')}/api/v3/as/applications/{path_segment(application)}"
            f"/webhooks/{path_segment(hook)}/devices/{path_segment(device)}/down"
        )
        return {
            "x-downlink-apikey": self.shown_key,
            "x-downlink-push": f"{place}/push",
            "x-downlink-replace": f"{place}/replace",
        }


def _up(delivery: Delivery, application: str, device: str) -> dict[str, Any]:
    origin = origin_of(delivery)
    whole = whole_message(delivery)
    metadata: dict[str, Any] = whole["metadata"] if whole is not None else {}
    ids: dict[str, Any] = {
        "device_id": device,
        "application_ids": {"application_id": application},
    }
    if origin.dev_eui:
        ids["dev_eui"] = origin.dev_eui.upper()
    for name in ("join_eui", "dev_addr"):
        if metadata.get(name):
            ids[name] = metadata[name]
    time = time_text(delivery)
    up = {
        "end_device_ids": ids,
        "correlation_ids": [f"as:up:{delivery.id}"],
        "received_at": metadata.get("received_at") or time,
    }
    fields = delivery.body if whole is None else whole["telemetry"]
    fields = fields if type(fields) is dict else {"value": fields}
    up |= _message(origin, metadata, fields, time)
    if metadata.get("simulated") is True:
        up["simulated"] = True
    return up


def _message(
    origin: Origin, metadata: dict[str, Any], fields: dict[str, Any], time: str
) -> dict[str, Any]:
    kind = origin.type or "uplink"
    if kind == "uplink":
        return {"uplink_message": _uplink(origin, metadata, fields, time)}
    if kind == "join":
        accept = {"received_at": time}
        if metadata.get("session_key_id"):
            accept["session_key_id"] = metadata["session_key_id"]
        return {"join_accept": accept}
    if kind == "location":
        solved = {
            "service": metadata.get("service", ""),
            "location": fields,
            "attributes": metadata.get("service_attributes", {}),
        }
        return {"location_solved": {name: value for name, value in solved.items() if value}}
    service = metadata.get("service") or f"funicular.{kind}"
    return {"service_data": {"service": service, "data": fields}}


def _uplink(
    origin: Origin, metadata: dict[str, Any], fields: dict[str, Any], time: str
) -> dict[str, Any]:
    message = {name: metadata[name] for name in _AS_THEY_ARE if metadata.get(name)}
    if origin.f_port:
        message["f_port"] = origin.f_port
    if origin.f_cnt:
        message["f_cnt"] = origin.f_cnt
    if origin.payload:
        message["frm_payload"] = b64encode(origin.payload).decode()
    if fields:
        message["decoded_payload"] = fields
    if origin.confirmed:
        message["confirmed"] = True
    radio = radio_of(metadata)
    message["rx_metadata"] = metadata.get("rx_metadata") or [
        _received(each) for each in radio.gateways
    ]
    message["settings"] = metadata.get("settings") or _settings(radio)
    for name, members in (("version_ids", _VERSION_IDS), ("network_ids", _NETWORK_IDS)):
        if found := {member: metadata[member] for member in members if metadata.get(member)}:
            message[name] = found
    return {name: value for name, value in message.items() if value} | {"received_at": time}


def _settings(radio: Radio) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    lora: dict[str, Any] = {}
    if radio.bandwidth_hz:
        lora["bandwidth"] = radio.bandwidth_hz
    if radio.spreading_factor:
        lora["spreading_factor"] = radio.spreading_factor
    if lora:
        if radio.coding_rate:
            lora["coding_rate"] = radio.coding_rate
        settings["data_rate"] = {"lora": lora}
    if radio.frequency_hz:
        settings["frequency"] = str(radio.frequency_hz)
    return settings


def _received(gateway: Gateway) -> dict[str, Any]:
    ids = {"gateway_id": gateway.id} if gateway.id else {}
    if gateway.eui:
        ids["eui"] = gateway.eui.upper()
    made: dict[str, Any] = {"gateway_ids": ids}
    if gateway.time:
        made["time"] = gateway.time
    if gateway.timestamp:
        made["timestamp"] = gateway.timestamp
    if gateway.rssi is not None:
        made |= {"rssi": gateway.rssi, "channel_rssi": gateway.rssi}
    if gateway.snr is not None:
        made["snr"] = gateway.snr
    if gateway.channel:
        made["channel_index"] = gateway.channel
    if gateway.latitude is not None and gateway.longitude is not None:
        location = {"latitude": gateway.latitude, "longitude": gateway.longitude}
        if gateway.altitude is not None:
            location["altitude"] = gateway.altitude
        made["location"] = location
    return made
