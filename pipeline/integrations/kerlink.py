"""Kerlink Wanesy Management Center: `dataUp` JSON in, downlinks by its API.

Format: the push API and migration pages of wikikerlink.fr (version 3). `metadata`: `device_id` (the
EUI), `dev_addr`, `cluster_id`, `f_cnt_down`, `adr`, `frequency` (MHz), `data_rate`, `coding_rate`,
`gateways` (`gwInfo`) as they came, `gateway_count`, and `rssi` and `snr` of the gateway that heard
it best. A payload that Kerlink could not decrypt is `metadata.encrypted_payload`.
What became of a downlink (`dataDownEvent`) is not read: it names no device.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Annotated, Any

import msgspec
import orjson

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
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.record import ID_LENGTH_MAX
from pipeline.model.uplink import Link, Uplink


class KerlinkOptions(ServerOptions):
    """`server`: the API's address, as https://wmc.example.com/gms; `api_key`: a token of it."""


class _EndDevice(msgspec.Struct):
    devEui: Name | None = None  # noqa: N815 - Kerlink's names
    devAddr: Name | None = None  # noqa: N815
    cluster: dict[str, Any] | None = None


class _DataUp(msgspec.Struct):
    id: str | None = None
    endDevice: _EndDevice | None = None  # noqa: N815
    fPort: Uint8 | None = None  # noqa: N815
    fCntUp: Uint32 | None = None  # noqa: N815
    fCntDown: Uint32 | None = None  # noqa: N815
    adr: bool | None = None
    confirmed: bool | None = None
    encrypted: bool | None = None
    payload: str | None = None
    encodingType: str | None = None  # noqa: N815
    recvTime: Annotated[float, msgspec.Meta(ge=0)] | None = None  # noqa: N815
    ulFrequency: float | None = None  # noqa: N815
    dataRate: str | None = None  # noqa: N815
    codingRate: str | None = None  # noqa: N815
    gwInfo: list[dict[str, Any]] | None = None  # noqa: N815


class Kerlink(Asynchronous):
    """The dialect; see the module."""

    name = "kerlink"
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = ("dev_eui", "dev_addr", "cluster_id")
    has_f_port = True
    takes_fields = False
    # What it could not push it pushes later, marked; the `id` stays, for however long.
    repeat_window_s = 24 * 3_600
    options = KerlinkOptions

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one uplink. MessageError as the port says."""
        up = convert(parse_object(request.body), _DataUp)
        if up.endDevice is None:
            raise MessageError(
                "`endDevice` is missing: it names the device",
                code="device_missing",
                field="endDevice.devEui",
            )
        dev_eui = lorawan.eui(up.endDevice.devEui, "endDevice.devEui")
        cluster = str((up.endDevice.cluster or {}).get("id", ""))
        names = {
            "dev_eui": dev_eui,
            "dev_addr": up.endDevice.devAddr or "",
            "cluster_id": cluster,
        }
        uplink = Uplink(
            device=DeviceTemplate.fill(device_template, names),
            time_ms=milliseconds_of(up.recvTime),
            payload=None if up.encrypted else _payload(up),
            f_port=up.fPort or 0,
            f_cnt=up.fCntUp or 0,
            dev_eui=dev_eui.upper(),
            confirmed=bool(up.confirmed),
            metadata=_metadata(up, dev_eui, cluster),
            link=Link(device_id=dev_eui, dev_eui=dev_eui.upper()),
            repeat_key=_key(up),
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: KerlinkOptions) -> Call:
        """Return the request to `application/dataDown`. MessageError `no_link`."""
        server, key = options.target()
        if not link.device_id:
            raise MessageError("no uplink has told the device's EUI yet", code="no_link")
        body = {
            "endDevice": {"devEui": link.device_id.upper()},
            "fPort": downlink.f_port,
            "confirmed": downlink.confirmed,
            "contentType": "HEXA",
            "payload": (downlink.payload or b"").hex(),
        }
        return Call(
            url=f"{server}/application/dataDown",
            body=orjson.dumps(body),
            headers={
                "authorization": f"Bearer {key}",
                "content-type": "application/vnd.kerlink.iot-v1+json",
                "user-agent": lorawan.USER_AGENT,
            },
        )

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a `dataUp` of the level «network». MessageError: the id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device").upper()
        gateway = {
            "gwEui": "7276FF0039030436",
            "rfRegion": "EU868",
            "rssi": -107 + counter % 40,
            "snr": -7,
            "channel": 6,
            "radioId": 1,
        }
        body = {
            "id": digest(f"{dev_eui}|{counter}|{now_ms}"),
            "endDevice": {
                "devEui": dev_eui,
                "devAddr": digest(dev_eui)[:8].upper(),
                "cluster": {"id": 1},
            },
            "fPort": 2,
            "fCntDown": 0,
            "fCntUp": counter,
            "adr": False,
            "confirmed": False,
            "encrypted": False,
            "payload": payload.hex(),
            "encodingType": "HEXA",
            "recvTime": now_ms,
            "ulFrequency": 868.3,
            "modulation": "LORA",
            "dataRate": "SF12BW125",
            "codingRate": "4/5",
            "gwCnt": 1,
            "gwInfo": [gateway],
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _payload(up: _DataUp) -> bytes:
    text = up.payload or ""
    if up.encodingType == "BASE64":
        try:
            return b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise bad_field("payload", "is not base64") from None
    return bytes_of_hex(text, "payload")


def _key(up: _DataUp) -> str:
    return "" if not up.id else up.id if len(up.id) <= ID_LENGTH_MAX else digest(up.id)


def _metadata(up: _DataUp, dev_eui: str, cluster: str) -> dict[str, Any]:
    said = {
        "dev_addr": up.endDevice.devAddr if up.endDevice else None,
        "cluster_id": cluster or None,
        "f_cnt_down": up.fCntDown,
        "adr": up.adr,
        "frequency": up.ulFrequency,
        "data_rate": up.dataRate,
        "coding_rate": up.codingRate,
        "encrypted_payload": up.payload if up.encrypted else None,
        "gateways": up.gwInfo,
    }
    metadata: dict[str, Any] = {"device_id": dev_eui}
    metadata.update({name: value for name, value in said.items() if value is not None})
    if up.gwInfo is not None:
        metadata.update(lorawan.best_reception(up.gwInfo))
    return metadata


DIALECT = Kerlink()
