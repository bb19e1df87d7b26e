"""ChirpStack v4, JSON or Protocol Buffers: every event in (HTTP, MQTT), downlinks by its API or
over MQTT.

Format: `api/proto/integration/integration.proto` of chirpstack/chirpstack in Protocol Buffers'
JSON, or in their own bytes where ChirpStack is set so (`encoding: protobuf`; `chirpstack_protobuf`
makes the same JSON of them). The event's kind is the query's `event` (HTTP), or the last part of the topic (MQTT).

| event | becomes |
|---|---|
| `up` | uplink: `payload`, and `fields` where ChirpStack's codec decoded it |
| `join` | join |
| `status` | status: `margin`, `external_power_source`, `battery_level` where it is known |
| `location` | location: `fields` as ChirpStack has them (latitude, longitude, altitude, …) |
| `log` | service_data of the service `log`: level, code, description, context; an error of a queue item fails its downlink |
| `integration` | service_data of the integration that it names |
| `txack`, `ack` | reports of our own downlinks, known by their queue item's id |

`metadata`: `device_id` (the EUI), `device_name`, `application_id`, `tenant_id`,
`device_profile_id`, the names of these three, `device_class_enabled`, `tags`, `deduplication_id`,
`dev_addr`, `region_config_id`; of uplinks also `adr`, `dr`, `frequency` (Hz), `bandwidth` (Hz),
`spreading_factor`, `coding_rate`, `rx_info` and `tx_info` as they came, `relay_rx_info`,
`gateway_count`, and `rssi` and `snr` of the gateway that heard it best. Session keys
(`joinServerContext`) are left out.
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

from base64 import b64encode
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

import orjson
from pydantic import Field, field_validator

from pipeline.errors import MessageError
from pipeline.integrations import (
    chirpstack_events,
    chirpstack_protobuf,
    chirpstack_queue,
    lorawan,
)
from pipeline.integrations.chirpstack_queue import QueueApi, eui_of
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Queued
from pipeline.integrations.document import digest, rfc3339
from pipeline.integrations.server_options import ServerOptions
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request, Response
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Uplink

_BYTES = "application/octet-stream"
SAMPLE_APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"


class MqttOptions(ServerOptions):
    """`server` and `api_key`: ChirpStack's REST API, for downlinks of an integration over HTTP,
    and for the device's queue, which is shown and flushed.

    Over MQTT: `application_id` takes the events of that application alone, and
    `topic_prefix` is what stands before `application/…` in ChirpStack's `event_topic`.
    """

    application_id: str = Field(default="", pattern=r"^[^/+#]*$", max_length=64)
    topic_prefix: str = Field(default="", pattern=r"^[^+#]*$", max_length=200)


class ChirpStackOptions(MqttOptions):
    """`encoding`: the payload encoding that ChirpStack's integration is set to, `json` or
    `protobuf`; over MQTT, commands have it too.
    """

    encoding: Literal["json", "protobuf"] = "json"

    @field_validator("encoding")
    @classmethod
    def _can_be_read(cls, encoding: str) -> str:
        if encoding == "protobuf" and not chirpstack_protobuf.is_installed():
            raise ValueError(
                "Protocol Buffers are not installed: pip install 'funicular[protobuf]'"
            )
        return encoding


class ChirpStack(QueueApi, Asynchronous):
    """The dialect; see the module."""

    name = "chirpstack"
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = (
        "dev_eui", "device_name", "application_id", "application_name", "tenant_id",
        "tenant_name", "dev_addr",
    )  # fmt: skip
    has_f_port = True
    takes_fields = False
    # ChirpStack tries once; a proxy or a broker between may repeat for a while.
    repeat_window_s = 15 * 60
    options = ChirpStackOptions

    def read(
        self,
        request: Request,
        options: ChirpStackOptions,
        device_template: str,
    ) -> list[Uplink]:
        """Return the one event. MessageError as the port says."""
        kind = request.query.get("event", "")
        body = request.body
        if is_protobuf(request):
            if options.encoding != "protobuf":
                raise MessageError(
                    "ChirpStack sends Protocol Buffers; set the integration's payload encoding to"
                    " JSON there, or `options: {encoding: protobuf}` here",
                    code="not_json",
                )
            if kind in chirpstack_protobuf.MESSAGES:
                body = chirpstack_protobuf.json_of(kind, body)
        told = chirpstack_events.parse(kind, body)
        info = told.info
        device = DeviceTemplate.fill(
            device_template,
            {
                "dev_eui": told.dev_eui,
                "device_name": info.device_name or "",
                "application_id": info.application_id or "",
                "application_name": info.application_name or "",
                "tenant_id": info.tenant_id or "",
                "tenant_name": info.tenant_name or "",
                "dev_addr": told.event.dev_addr or "",
            },
        )
        return [chirpstack_events.uplink_of(told, device)]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: ChirpStackOptions) -> Call:
        """Return the request that enqueues it; `replace` flushes the queue. MessageError
        `no_link`.
        """
        body: dict[str, Any] = {"queueItem": _item(downlink)}
        if downlink.queue == "replace":
            body["flushQueue"] = True
        return chirpstack_queue.enqueue(link, options, body)

    def read_queue(self, response: Response) -> list[Queued]:
        """Return what the queue's listing says."""
        return chirpstack_queue.read_v4(response)

    def reference(self, answer: bytes) -> str:
        """Return the queue item's id, by which reports name the downlink."""
        return lorawan.reference_in(answer, "id")

    def topics(self, options: ChirpStackOptions) -> tuple[str, ...]:
        """Return the filter of all events of all devices."""
        prefix = options.topic_prefix
        return (f"{prefix}application/{options.application_id or '+'}/device/+/event/+",)

    def from_topic(self, topic: str, body: bytes, options: ChirpStackOptions) -> Request | None:
        """Return the request that HTTP would bring; None: the topic is none of an event."""
        parts = topic.removeprefix(options.topic_prefix).split("/")
        if len(parts) != 6 or parts[::2] != ["application", "device", "event"]:
            return None
        # `{` begins no message of Protocol Buffers: JSON is what `funicular send` publishes.
        is_json = options.encoding == "json" or body.startswith(b"{")
        return Request(
            body=body,
            query={"event": parts[5]},
            headers={"content-type": "application/json" if is_json else _BYTES},
        )

    def publication(
        self, downlink: Downlink, link: Link, options: ChirpStackOptions
    ) -> Publication:
        """Return the command for the device's queue. It has no way to flush, so that `replace`
        is appended like `last`. MessageError `no_link`.
        """
        application = link.application_id or options.application_id
        dev_eui = eui_of(link)
        if not application:
            raise MessageError("no uplink has told the device's application yet", code="no_link")
        reference = str(uuid5(NAMESPACE_URL, f"funicular:{downlink.id}"))
        if options.encoding == "protobuf":
            item = {
                "id": reference,
                "dev_eui": dev_eui,
                "confirmed": downlink.confirmed,
                "f_port": downlink.f_port,
                "data": downlink.payload or b"",
            }
            payload = chirpstack_protobuf.command(item, downlink.expires_at_ms)
        else:
            payload = orjson.dumps({"id": reference, "devEui": dev_eui, **_item(downlink)})
        path = f"application/{topic_level(application)}/device/{topic_level(dev_eui)}/command/down"
        return Publication(topic=options.topic_prefix + path, payload=payload, reference=reference)

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an `up` event. MessageError: the device's id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device")
        time = rfc3339(now_ms)
        body = {
            "deduplicationId": str(uuid5(NAMESPACE_URL, f"{dev_eui}|{counter}|{now_ms}")),
            "time": time,
            "deviceInfo": {
                "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
                "tenantName": "ChirpStack",
                "applicationId": SAMPLE_APPLICATION,
                "applicationName": "Sample application",
                "deviceProfileId": "14855bf7-d10d-4aee-b618-ebfcb64dc7ad",
                "deviceProfileName": "Sample device-profile",
                "deviceName": f"sample-{dev_eui[-4:]}",
                "devEui": dev_eui,
                "deviceClassEnabled": "CLASS_A",
                "tags": {},
            },
            "devAddr": digest(dev_eui)[:8],
            "adr": True,
            "dr": 5,
            "fCnt": counter,
            "fPort": 1,
            "confirmed": False,
            "data": b64encode(payload).decode(),
            "rxInfo": [
                {
                    "gatewayId": "0016c001f153a14c",
                    "uplinkId": 4217106255 - counter % 1000,
                    "gwTime": time,
                    "rssi": -36 - counter % 60,
                    "snr": 10.5,
                    "context": "E3OWOQ==",
                    "metadata": {"region_name": "eu868"},
                    "crcStatus": "CRC_OK",
                }
            ],
            "txInfo": {
                "frequency": 867100000,
                "modulation": {
                    "lora": {"bandwidth": 125000, "spreadingFactor": 7, "codeRate": "CR_4_5"}
                },
            },
            "regionConfigId": "eu868",
        }
        return Request(
            body=orjson.dumps(body),
            query={"event": "up"},
            headers={"content-type": "application/json"},
        )

    def sample_topic(self, device_id: str, options: ChirpStackOptions) -> str:
        """Return the topic that `sample` is published to."""
        application = options.application_id or SAMPLE_APPLICATION
        return f"{options.topic_prefix}application/{application}/device/{device_id}/event/up"


def is_protobuf(request: Request) -> bool:
    """Return whether ChirpStack says that these are Protocol Buffers."""
    return request.headers.get("content-type", "").startswith(_BYTES)


def _item(downlink: Downlink) -> dict[str, Any]:
    item: dict[str, Any] = {
        "confirmed": downlink.confirmed,
        "data": b64encode(downlink.payload or b"").decode(),
        "fPort": downlink.f_port,
    }
    if downlink.expires_at_ms is not None:
        item["expiresAt"] = rfc3339(downlink.expires_at_ms)
    return item


DIALECT = ChirpStack()
