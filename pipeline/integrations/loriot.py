"""LORIOT: uplink JSON in (`rx`, or `gw` with its gateways), downlinks by its REST API.

Format: the API data format pages of docs.loriot.io. `rx` and `gw` tell of the same uplink: let the
application's output send one of the two. Bytes that LORIOT cannot decrypt (it has no AppSKey) are
no `payload`, but `metadata.encrypted_payload`.

| `cmd` | becomes |
|---|---|
| `rx`, `gw` | uplink |
| `txd` | report: the downlink with this counter was transmitted |

`metadata`: `device_id` (the EUI), `frequency` (Hz), `data_rate`, `battery` (0 to 255, as LoRaWAN
has it), `time_on_air_ms`, `encrypted_payload`, `gateways` as they came, `gateway_count`, `rssi` and
`snr` of the gateway that heard it best.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import orjson
from pydantic import Field

from pipeline.errors import MessageError
from pipeline.integrations import lorawan
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate
from pipeline.integrations.document import (
    Name,
    Uint8,
    Uint32,
    bad_field,
    bytes_of_hex,
    convert,
    digest,
    milliseconds_of,
    parse_object,
)
from pipeline.integrations.server_options import ServerOptions
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Call, Request
from pipeline.model.uplink import Link, Report, Uplink

_EPOCH_MS = Annotated[float, msgspec.Meta(ge=0)]


class LoriotOptions(ServerOptions):
    """`server` (https://eu1.loriot.io) and `api_key`, the application's token; `application_id`:
    the eight hexadecimal digits of the application.
    """

    application_id: str = Field(default="", pattern=r"^[0-9A-Za-z]{0,32}$")


class _Message(msgspec.Struct):
    cmd: str | None = None
    EUI: Name | None = None
    ts: _EPOCH_MS | None = None
    ack: bool | None = None
    bat: Uint8 | None = None
    fcnt: Uint32 | None = None
    port: Uint8 | None = None
    data: str | None = None
    encdata: str | None = None
    rssi: float | None = None
    snr: float | None = None
    freq: Uint32 | None = None
    toa: float | None = None
    dr: str | None = None
    gws: list[dict[str, Any]] | None = None
    seqdn: Uint32 | None = None


class Loriot(Asynchronous):
    """The dialect; see the module."""

    name = "loriot"
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = ("dev_eui",)
    has_f_port = True
    takes_fields = False
    # LORIOT tries once; a proxy between may repeat for a while.
    repeat_window_s = 15 * 60
    options = LoriotOptions

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one message. MessageError as the port says."""
        message = convert(parse_object(request.body), _Message)
        if message.cmd not in ("rx", "gw", "txd"):
            raise bad_field("cmd", "must be rx, gw or txd: let the output send these alone")
        dev_eui = lorawan.eui(message.EUI, "EUI")
        device = DeviceTemplate.fill(device_template, {"dev_eui": dev_eui})
        link = Link(device_id=dev_eui, dev_eui=dev_eui.upper())
        if message.cmd == "txd":
            return [_transmitted(message, device, link)]
        payload = None if message.data is None else bytes_of_hex(message.data, "data")
        uplink = Uplink(
            device=device,
            time_ms=milliseconds_of(message.ts),
            payload=b"" if payload is None and not message.encdata else payload,
            f_port=message.port or 0,
            f_cnt=message.fcnt or 0,
            dev_eui=dev_eui.upper(),
            confirmed=bool(message.ack),
            metadata=_metadata(message, dev_eui),
            link=link,
            repeat_key=_key(message, dev_eui),
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: LoriotOptions) -> Call:
        """Return the `tx` command. MessageError `no_link`. LORIOT appends; it has no other way."""
        server, key = options.target()
        if not link.device_id or not options.application_id:
            raise MessageError(
                "a downlink needs the device's EUI, from an uplink, and `application_id` of the"
                " integration's options",
                code="no_link",
            )
        body = {
            "cmd": "tx",
            "appid": options.application_id,
            "EUI": link.device_id.upper(),
            "port": downlink.f_port,
            "confirmed": downlink.confirmed,
            "data": (downlink.payload or b"").hex(),
        }
        return Call(
            url=f"{server}/1/rest",
            body=orjson.dumps(body),
            headers={
                "authorization": f"Bearer {key}",
                "content-type": "application/json",
                "user-agent": lorawan.USER_AGENT,
            },
        )

    def reference(self, answer: bytes) -> str:
        """Return the counter that the downlink got, by which `txd` names it."""
        return lorawan.reference_in(answer, "seqdn", "f_cnt:")

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a `gw` message. MessageError: the device's id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device").upper()
        gateway = {
            "rssi": -35 - counter % 60,
            "snr": 9.5,
            "ts": now_ms,
            "gweui": "0000000000000001",
            "lat": 47.284687,
            "lon": 8.565746,
        }
        body = {
            "cmd": "gw",
            "EUI": dev_eui,
            "ts": now_ms,
            "ack": False,
            "bat": 254,
            "fcnt": counter,
            "port": 1,
            "data": payload.hex(),
            "freq": 868500000,
            "dr": "SF7 BW125 4/5",
            "toa": 61,
            "gws": [gateway],
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _key(message: _Message, dev_eui: str) -> str:
    if message.fcnt is None or not message.ts:
        return ""
    content = f"{dev_eui}|{message.fcnt}|{message.ts:.0f}"
    return digest(content, (message.data or message.encdata or "").encode(errors="surrogatepass"))


def _transmitted(message: _Message, device: str, link: Link) -> Uplink:
    if message.seqdn is None:
        raise bad_field("seqdn", "is missing: it is the downlink's counter")
    detail = {"event": "txd", "transmitted": True, "f_cnt": message.seqdn}
    report = Report(state=State.ACCEPTED, reference=f"f_cnt:{message.seqdn}", detail=detail)
    return Uplink(
        device=device,
        type=None,
        time_ms=milliseconds_of(message.ts),
        link=link,
        reports=(report,),
    )


def _metadata(message: _Message, dev_eui: str) -> dict[str, Any]:
    said = {
        "frequency": message.freq,
        "data_rate": message.dr,
        "battery": message.bat,
        "time_on_air_ms": message.toa,
        "encrypted_payload": message.encdata,
        "gateways": message.gws,
        "rssi": message.rssi,
        "snr": message.snr,
    }
    metadata: dict[str, Any] = {"device_id": dev_eui}
    metadata.update({name: value for name, value in said.items() if value is not None})
    if message.gws is not None:
        metadata.update(lorawan.best_reception(message.gws))
    return metadata


DIALECT = Loriot()
