"""The Things Stack v3, webhooks or MQTT (JSON): every kind of `ApplicationUp` in, downlinks by its
API or over MQTT (`tts_v3_mqtt`).

Format: `api/ttn/lorawan/v3/messages.proto` of TheThingsNetwork/lorawan-stack and its data-formats
page. Fields that are zero, empty or false are left out; names may be snake_case or camelCase;
64-bit numbers are text.

| kind | becomes |
|---|---|
| `uplink_message` | uplink: `payload`, and `fields` where it was decoded |
| `uplink_normalized` | uplink without payload: `fields` is the normalized measurement |
| `join_accept` | join, and a report for each of our downlinks that it invalidated |
| `location_solved` | location: `fields` has latitude, longitude, altitude, accuracy, source |
| `service_data` | service_data: `fields` is the service's data |
| `downlink_*` | reports of our own downlinks, known by the correlation id `funicular:<id>` |

`metadata`: `application_id`, `device_id`, `join_eui`, `dev_addr`, `received_at`, `simulated`; of
uplinks also `session_key_id`, `frequency` (Hz), `bandwidth` (Hz), `spreading_factor`,
`coding_rate`, `consumed_airtime`, `last_a_f_cnt_down`, `packet_error_rate`, `locations`,
`brand_id` and the rest of `version_ids`, `net_id`, `tenant_id`, `cluster_id` and the rest of
`network_ids`, `rx_metadata` and `settings` as they came, `gateway_count`, `rssi` and `snr` of the
gateway that heard it best, `decoded_payload_warnings`, `normalized_payload` and its warnings.
`attributes` are those that the network server keeps of the device.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Self

import msgspec
import orjson
from pydantic import Field, SecretStr, field_validator, model_validator

from pipeline.errors import MessageError
from pipeline.integrations import lorawan, tts_v3_up
from pipeline.integrations.dialect import (
    Asynchronous,
    DeviceTemplate,
    Options,
    Queued,
    path_segment,
)
from pipeline.integrations.document import URL_LENGTH_MAX, convert, digest, parse_object, rfc3339
from pipeline.integrations.tts_v3_mqtt import TtsV3Topics, message_of, operation_of
from pipeline.integrations.tts_v3_storage import TtsV3Storage
from pipeline.integrations.tts_v3_up import OUR_ID
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request, Response
from pipeline.model.uplink import Link, Uplink

_SERVER = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class TtsV3Options(Options):
    """Where downlinks go: `server` (https://…) with an `api_key` that may write downlinks.

    Without them: where the webhook's own headers say (a webhook with a downlink API key), limited
    to `downlink_hosts` unless that is empty. `application_id`: where it is not the uplink's.
    Over MQTT: topics are those of `application_id`, else of all that the user may read;
    `tenant_id` is what follows the @ in the server's topics (`ttn` in its community network; empty
    where a server of one's own has none).
    """

    server: str = ""
    api_key: SecretStr | None = None
    application_id: str = Field(default="", pattern=r"^[^/+#]*$")
    tenant_id: str = Field(default="", pattern=r"^[^/+#@]*$")
    user_agent_suffix: str = Field(default="", max_length=100, pattern=r"^[ -~]*$")
    downlink_hosts: tuple[str, ...] = ()

    @field_validator("server")
    @classmethod
    def _is_a_url(cls, server: str) -> str:
        if server and not _SERVER.fullmatch(server):
            raise ValueError(
                "must be a URL as https://eu1.cloud.thethings.network, without a query"
            )
        return server.rstrip("/").removesuffix("/api/v3")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if bool(self.server) != (self.api_key is not None):
            raise ValueError("`server` and `api_key` go together: set both or neither")
        return self


class _Item(msgspec.Struct):
    """One downlink of the queue. What is zero is left out."""

    f_port: int | None = None
    f_cnt: int | None = None
    frm_payload: bytes | None = None
    confirmed: bool | None = None
    priority: str | None = None
    correlation_ids: list[str] | None = None


class _Queue(msgspec.Struct):
    downlinks: list[_Item] | None = None


class TtsV3(TtsV3Topics, TtsV3Storage, Asynchronous):
    """The dialect; see the module."""

    name = "tts_v3"
    contract = "lorawan"
    device_template = "{application_id}:{device_id}"
    device_variables = (
        "application_id", "device_id", "dev_eui", "join_eui", "dev_addr",
    )  # fmt: skip
    has_f_port = True
    takes_fields = False
    # Cloud editions try a webhook 7 times within 72 minutes, ±15 %.
    repeat_window_s = 90 * 60
    options = TtsV3Options

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one message. MessageError as the port says."""
        if request.headers.get("content-type", "").startswith("application/octet-stream"):
            raise MessageError(
                "the webhook sends Protocol Buffers; set its format to JSON", code="not_json"
            )
        up = tts_v3_up.parse(request.body)
        ids = up.ids
        device = DeviceTemplate.fill(
            device_template,
            {
                "application_id": ids.application_id,
                "device_id": ids.device_id or "",
                "dev_eui": ids.dev_eui or "",
                "join_eui": ids.join_eui or "",
                "dev_addr": ids.dev_addr or "",
            },
        )
        return [tts_v3_up.uplink_of(up, device, _link(ids, request.headers))]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: TtsV3Options) -> Call:
        """Return the request to `down/push`, or to `down/replace`. MessageError `no_link`."""
        return _call(link, options, operation_of(downlink), [message_of(downlink)])

    def ask_queue(self, link: Link, options: TtsV3Options) -> Call:
        """Return the request to `GET …/down`; it needs the options' `server` and `api_key`."""
        if not options.server:
            raise MessageError(
                "the queue of The Things Stack can be asked for only where the integration's"
                " options have `server` and `api_key`",
                code="no_link",
            )
        url, key = _target(link, options, "")
        return Call(url=url, method="GET", headers=_headers(key, options))

    def read_queue(self, response: Response) -> list[Queued]:
        """Return what `GET …/down` says."""
        body = convert(parse_object(response.body), _Queue)
        return [
            Queued(
                f_port=item.f_port,
                payload=item.frm_payload,
                confirmed=bool(item.confirmed),
                ours=_our_id(item.correlation_ids or ()),
                detail={
                    "priority": (item.priority or "LOWEST").lower(),
                    "f_cnt": item.f_cnt,
                    "correlation_ids": item.correlation_ids or [],
                },
            )
            for item in body.downlinks or ()
        ]

    def clear_queue(self, link: Link, options: TtsV3Options) -> Call:
        """Return the request to `down/replace` with nothing."""
        return _call(link, options, "replace", [])

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an uplink as a webhook posts it; like The Things Stack, without zero fields."""
        time = rfc3339(now_ms)
        ulid = digest(f"{device_id}|{counter}|{now_ms}").upper()
        message: dict[str, Any] = {
            "session_key_id": b64encode(digest(device_id).encode()[:16]).decode(),
            "f_port": 1,
            "rx_metadata": [
                {
                    "gateway_ids": {"gateway_id": "sample-gateway", "eui": "9C5C8E00001A05C4"},
                    "time": time,
                    "timestamp": now_ms * 1000 % 2**32,
                    "rssi": -35 - counter % 60,
                    "channel_rssi": -35 - counter % 60,
                    "snr": 5.2,
                }
            ],
            "settings": {
                "data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}},
                "coding_rate": "4/5",
                "frequency": "868300000",
            },
            "consumed_airtime": "0.056576s",
            "received_at": time,
        }
        if counter:
            message["f_cnt"] = counter
        if payload:
            message["frm_payload"] = b64encode(payload).decode()
        body = {
            "end_device_ids": {
                "device_id": device_id,
                "application_ids": {"application_id": "sample-app"},
                "dev_eui": digest(device_id)[:16].upper(),
                "join_eui": "800000000000000C",
                "dev_addr": digest(device_id)[16:].upper(),
            },
            "correlation_ids": [f"as:up:{ulid}", f"ns:uplink:{ulid}"],
            "received_at": time,
            "uplink_message": message,
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _link(ids: tts_v3_up.Ids, headers: dict[str, str]) -> Link:
    """Return how the device is reached: ids, and what a webhook with an API key brings along."""
    urls = {}
    for operation in ("push", "replace"):
        url = headers.get(f"x-downlink-{operation}", "")
        if url and len(url) <= URL_LENGTH_MAX:
            urls[operation] = url
    return Link(
        application_id=ids.application_id,
        device_id=ids.device_id or "",
        dev_eui=ids.dev_eui or "",
        urls=urls,
        key=headers.get("x-downlink-apikey", "") if urls else "",
    )


def _our_id(correlation_ids: Iterable[str]) -> str:
    found = (one.removeprefix(OUR_ID) for one in correlation_ids if one.startswith(OUR_ID))
    return next(found, "")


def _call(
    link: Link, options: TtsV3Options, operation: str, downlinks: list[dict[str, Any]]
) -> Call:
    url, key = _target(link, options, operation)
    return Call(
        url=url, body=orjson.dumps({"downlinks": downlinks}), headers=_headers(key, options)
    )


def _headers(key: str, options: TtsV3Options) -> dict[str, str]:
    return {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "user-agent": f"{lorawan.USER_AGENT} {options.user_agent_suffix}".rstrip(),
    }


def _target(link: Link, options: TtsV3Options, operation: str) -> tuple[str, str]:
    """Return URL and key. The options' key goes to the options' server and nowhere else."""
    if options.server and options.api_key is not None:
        application = options.application_id or link.application_id
        if not application or not link.device_id:
            raise MessageError(
                "no uplink has told the device's application_id and device_id yet", code="no_link"
            )
        place = f"{path_segment(application)}/devices/{path_segment(link.device_id)}"
        url = f"{options.server}/api/v3/as/applications/{place}/down/{operation}".rstrip("/")
        return url, options.api_key.get_secret_value()
    url = link.urls.get(operation, "")
    if not url or not link.key:
        raise MessageError(
            "the integration's options have no `server` and `api_key`, and the device's last uplink"
            " came without X-Downlink headers (give the webhook a downlink API key)",
            code="no_link",
        )
    return lorawan.callable_url(url, options.downlink_hosts), link.key


DIALECT = TtsV3()
