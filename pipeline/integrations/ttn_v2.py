"""The Things Network v2: its HTTP integration, and its Data API (MQTT).

Format: the v2 HTTP integration page, `mqtt/README.md` and `core/types` of TheThingsNetwork/ttn.
Uplink JSON in; downlinks go to the uplink's `downlink_url`, or to the topic `…/down`. Over MQTT
there are events, too (`ttn_v2_events`): activations are joins, errors are service_data of the
service `errors`, and what became of a downlink is a report of the last one that was sent, as v2
gives a downlink no id.
`metadata` of an uplink: what the network server says (`time`, `frequency` in MHz, `modulation`,
`data_rate`, `bit_rate`, `coding_rate`, `airtime` in ns, `latitude`, `longitude`, `altitude`,
`gateways`), and `application_id`, `device_id`, `is_retry`, `gateway_count`, and `rssi` and `snr` of
the gateway that heard it best.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import Field, SecretStr

from pipeline.errors import MessageError
from pipeline.integrations import lorawan, ttn_v2_events
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Options
from pipeline.integrations.document import (
    URL_LENGTH_MAX,
    Name,
    Uint8,
    Uint32,
    convert,
    digest,
    parse_object,
    rfc3339,
    time_of,
)
from pipeline.integrations.ttn_v2_storage import TtnV2Storage
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Uplink


class TtnV2Options(Options):
    """`downlink_url` is called instead of the one that an uplink brings; it holds the access key.

    `downlink_hosts`: only these hosts may be called because an uplink says so; empty: any.
    `application_id`: over MQTT, the one whose topics are read; empty: all that the user may read.
    """

    downlink_url: SecretStr | None = None
    downlink_hosts: tuple[str, ...] = ()
    application_id: str = Field(default="", pattern=r"^[^/+#]*$", max_length=255)


class _Up(msgspec.Struct):
    """The uplink's JSON. The docs say that zero values may be left out; Go writes null for nil."""

    dev_id: Name | None = None
    app_id: Name | None = None
    hardware_serial: Name | None = None
    port: Uint8 | None = None
    counter: Uint32 | None = None
    is_retry: bool | None = None
    confirmed: bool | None = None
    payload_raw: bytes | None = None
    payload_fields: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None
    downlink_url: Annotated[str, msgspec.Meta(max_length=URL_LENGTH_MAX)] | None = None


class TtnV2(TtnV2Storage, Asynchronous):
    """The dialect; see the module."""

    name = "ttn_v2"
    contract = "lorawan"
    device_template = "{application_id}:{device_id}"
    device_variables = ("application_id", "device_id", "dev_eui")
    has_f_port = True
    takes_fields = False
    # A device repeats a confirmed uplink up to 8 times; at SF12 and 1 % duty cycle that takes less
    # than 15 minutes in all but the worst case. The network server itself repeats nothing.
    repeat_window_s = 900
    options = TtnV2Options

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one uplink or event. MessageError as the port says."""
        if "event" in request.query:
            return [ttn_v2_events.read(request, device_template)]
        up = convert(parse_object(request.body), _Up)
        if not up.dev_id:
            raise MessageError(
                "`dev_id` is missing: it names the device", code="device_missing", field="dev_id"
            )
        app_id = up.app_id or ""
        dev_eui = (up.hardware_serial or "").upper()
        device = DeviceTemplate.fill(
            device_template,
            {"application_id": app_id, "device_id": up.dev_id, "dev_eui": dev_eui},
        )
        received = up.metadata or {}
        gateways = received.get("gateways")
        metadata = {
            **received,
            "application_id": app_id,
            "device_id": up.dev_id,
            "is_retry": bool(up.is_retry),
            **lorawan.best_reception(gateways if type(gateways) is list else ()),
        }
        link = Link(
            application_id=app_id,
            device_id=up.dev_id,
            dev_eui=dev_eui,
            urls={"downlink": up.downlink_url} if up.downlink_url else {},
        )
        time_ms = time_of(received.get("time"), "metadata.time")
        repeat_key, repeat_also = _repeat_keys(up, time_ms)
        uplink = Uplink(
            device=device,
            time_ms=time_ms,
            payload=up.payload_raw or b"",
            fields=up.payload_fields,
            f_port=up.port,
            f_cnt=up.counter,
            dev_eui=dev_eui,
            confirmed=bool(up.confirmed),
            metadata=metadata,
            attributes=up.attributes or {},
            link=link,
            repeat_key=repeat_key,
            repeat_also=repeat_also,
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: TtnV2Options) -> Call:
        """Return the POST to the downlink URL. MessageError `no_link`."""
        if not link.device_id:
            raise MessageError("no uplink has told the device's dev_id yet", code="no_link")
        if options.downlink_url is not None:
            url = options.downlink_url.get_secret_value()
        elif link.urls.get("downlink"):
            url = lorawan.callable_url(link.urls["downlink"], options.downlink_hosts)
        else:
            raise MessageError(
                "the device's last uplink had no downlink_url, and the integration's options"
                " have none",
                code="no_link",
            )
        body = {"dev_id": link.device_id, **_message(downlink)}
        headers = {"content-type": "application/json", "user-agent": lorawan.USER_AGENT}
        return Call(url=url, body=orjson.dumps(body), headers=headers)

    def topics(self, options: TtnV2Options) -> tuple[str, ...]:
        """Return the filters of uplinks and events; those of single fields are left out."""
        devices = f"{options.application_id or '+'}/devices/+"
        return (f"{devices}/up", f"{devices}/events/#")

    def from_topic(
        self,
        topic: str,
        body: bytes,
        options: TtnV2Options,  # noqa: ARG002 - the port's shape
    ) -> Request | None:
        """Return the request of an uplink, or of an event, which the query then names."""
        parts = topic.split("/")
        if len(parts) < 4 or parts[1] != "devices":
            return None
        headers = {"content-type": "application/json"}
        if parts[3:] == ["up"]:
            return Request(body=body, headers=headers)
        event = "/".join(parts[4:])
        if parts[3] != "events" or event not in ttn_v2_events.EVENTS:
            return None
        query = {"event": event, "app_id": parts[0], "dev_id": parts[2]}
        return Request(body=body, query=query, headers=headers)

    def publication(self, downlink: Downlink, link: Link, options: TtnV2Options) -> Publication:
        """Return the message to the device's `down`. MessageError `no_link`."""
        application = link.application_id or options.application_id
        if not link.device_id or not application:
            raise MessageError(
                "no uplink has told the device's app_id and dev_id yet", code="no_link"
            )
        topic = f"{topic_level(application)}/devices/{topic_level(link.device_id)}/down"
        return Publication(topic=topic, payload=orjson.dumps(_message(downlink)))

    def sample_topic(self, device_id: str, options: TtnV2Options) -> str:
        """Return the topic that `sample` is published to."""
        return f"{options.application_id or 'sample-app'}/devices/{device_id}/up"

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an uplink as the HTTP integration posts it."""
        time = rfc3339(now_ms)
        gateway = {
            "gtw_id": "eui-0102030405060708",
            "gtw_trusted": True,
            "timestamp": now_ms * 1000 % 2**32,
            "time": time,
            "channel": counter % 8,
            "rssi": -25 - counter % 60,
            "snr": 5,
            "rf_chain": 0,
            "latitude": 52.1234,
            "longitude": 6.1234,
            "altitude": 6,
        }
        body = {
            "app_id": "sample-app",
            "dev_id": device_id,
            "hardware_serial": digest(device_id)[:16].upper(),
            "port": 1,
            "counter": counter,
            "payload_raw": b64encode(payload).decode(),
            "metadata": {
                "time": time,
                "frequency": 868.1,
                "modulation": "LORA",
                "data_rate": "SF7BW125",
                "airtime": 46336000,
                "coding_rate": "4/5",
                "gateways": [gateway],
            },
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _message(downlink: Downlink) -> dict[str, Any]:
    return {
        "port": downlink.f_port,
        "confirmed": downlink.confirmed,
        "schedule": downlink.queue,
        "payload_raw": b64encode(downlink.payload or b"").decode(),
    }


def _repeat_keys(up: _Up, time_ms: int | None) -> tuple[str, str]:
    """Return the key of one transmission, and a second one, each empty where there is none.

    An uplink is known by its device, its bytes and the network server's time, which is all that
    its storage keeps of it. A confirmed one that the device repeats (`is_retry`) has the same
    counter and bytes at another time: its counter is its key, and the time makes the second one.
    Without what tells messages apart there is no key: a message twice is better than one lost.
    """
    timed = ""
    if time_ms is not None:
        timed = digest(f"{up.app_id}:{up.dev_id}|{time_ms}", up.payload_raw or b"")
    if not (up.confirmed or up.is_retry):
        return timed, ""
    if up.counter is None:
        return "", ""
    who = up.hardware_serial or f"{up.app_id}:{up.dev_id}"
    return digest(f"{who}|{up.counter}|{up.port}|", up.payload_raw or b""), timed


DIALECT = TtnV2()
