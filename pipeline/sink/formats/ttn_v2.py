"""Format `ttn_v2`: the uplink's JSON as The Things Network v2's HTTP integration posted it.

Format: the v2 HTTP integration page and `core/types` of TheThingsNetwork/ttn. Members that are zero
are left out, save `port`, `counter`, `payload_raw` and a gateway's `channel`, `rssi`, `snr` and
`rf_chain`. What came from v2 leaves as it came; of other network servers, what v2 has a name for.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.integrations.dialect import path_segment
from pipeline.model.delivery import Delivery
from pipeline.sink.formats.back import BackPart, ids_of
from pipeline.sink.formats.radio import MHZ, Gateway, radio_of
from pipeline.sink.formats.shaped import (
    Shape,
    Shaped,
    encode,
    origin_of,
    time_text,
    whole_message,
)

UPLINK = "uplink"
_METADATA = (
    "frequency", "modulation", "data_rate", "bit_rate", "coding_rate", "airtime", "gateways",
    "latitude", "longitude", "altitude",
)  # fmt: skip


class TtnV2Format(BackPart):
    """`format: ttn_v2`, or with the way back for downlinks:

    ```yaml
    format:
      ttn_v2:
        url: https://funicular.example.com
        key: ${env:WEB_PROCESS_KEY}    # of `funicular keys create`, with the right downlink
        process: web                   # default: the integration that the uplink came by
    ```
    Uplinks alone: what else a chain sends here is refused.
    """

    handler: str = Field(default="funicular", pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)
    process: str = Field(default="", max_length=64)

    def shape(self, tenant: str, destination: str) -> Shape:  # noqa: ARG002 - the port's shape
        """See `FormatPart.shape`."""

        def shape(delivery: Delivery) -> Shaped:
            application, device = ids_of(delivery, destination)
            up = _up(delivery, application, device)
            if self.url:
                process = self.process or origin_of(delivery).integration or destination
                up["downlink_url"] = (
                    f"{self.url.rstrip('/')}/{self.handler}/api/v2/down/{path_segment(application)}"
                    f"/{path_segment(process)}?{urlencode({'key': self.shown_key})}"
                )
            return Shaped(encode(up))

        return shape


def _up(delivery: Delivery, application: str, device: str) -> dict[str, Any]:
    origin = origin_of(delivery)
    whole = whole_message(delivery)
    kind = origin.type or (whole["type"] if whole is not None else UPLINK)
    if kind != UPLINK:
        raise MessageError(
            f"the format ttn_v2 has uplinks alone; this is `{kind}`: send it elsewhere, or let the"
            " chain begin with `on: {messages: [uplink]}`",
            code="format",
        )
    metadata = whole["metadata"] if whole is not None else {}
    up: dict[str, Any] = {"app_id": application, "dev_id": device}
    if origin.dev_eui:
        up["hardware_serial"] = origin.dev_eui.upper()
    up |= {"port": origin.f_port or 0, "counter": origin.f_cnt or 0}
    if metadata.get("is_retry") is True:
        up["is_retry"] = True
    if origin.confirmed:
        up["confirmed"] = True
    up["payload_raw"] = b64encode(origin.payload or b"").decode()
    fields = delivery.body if whole is None else whole["telemetry"]
    if fields:
        up["payload_fields"] = fields if type(fields) is dict else {"value": fields}
    up["metadata"] = {"time": time_text(delivery), **_metadata(metadata)}
    return up


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    if type(metadata.get("gateways")) is list:  # it came from v2
        return {name: metadata[name] for name in _METADATA if metadata.get(name)}
    radio = radio_of(metadata)
    made: dict[str, Any] = {}
    if radio.frequency_hz:
        made["frequency"] = radio.frequency_hz / MHZ
    if radio.spreading_factor and radio.bandwidth_hz:
        made["modulation"] = "LORA"
        made["data_rate"] = f"SF{radio.spreading_factor}BW{radio.bandwidth_hz // 1_000}"
    airtime = metadata.get("consumed_airtime")
    if type(airtime) is str and airtime.endswith("s") and (ns := _nanoseconds(airtime[:-1])):
        made["airtime"] = ns
    if radio.coding_rate:
        made["coding_rate"] = radio.coding_rate
    if radio.gateways:
        made["gateways"] = [_gateway(each) for each in radio.gateways]
    return made


def _nanoseconds(text: str) -> int:
    try:
        return round(float(text) * 1_000_000_000)
    except (ValueError, OverflowError):
        return 0


def _gateway(gateway: Gateway) -> dict[str, Any]:
    name = gateway.id or (f"eui-{gateway.eui.lower()}" if gateway.eui else "")
    made: dict[str, Any] = {"gtw_id": name}
    if gateway.timestamp:
        made["timestamp"] = gateway.timestamp
    if gateway.time:
        made["time"] = gateway.time
    made |= {
        "channel": gateway.channel or 0,
        "rssi": gateway.rssi or 0,
        "snr": gateway.snr or 0,
        "rf_chain": 0,
    }
    for name in ("latitude", "longitude", "altitude"):
        if value := getattr(gateway, name):
            made[name] = value
    return made
