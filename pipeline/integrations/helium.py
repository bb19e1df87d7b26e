"""Helium's console (and the routers that speak its format): uplink JSON in, downlinks to the
uplink's `downlink_url`.

Format: the JSON schema page of docs.helium.com. `metadata`: `device_id` (the EUI), `device_name`,
`uuid` (the console's id of the device), `app_eui`, `dev_addr`, `labels`, `hotspots` as they came,
`frequency` (MHz) and `data_rate` of the first, `gateway_count`, and `rssi` and `snr` of the
best.
Helium calls again for a confirmed uplink that the device repeats, without a word of it.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import SecretStr

from pipeline.errors import MessageError
from pipeline.integrations import lorawan
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Options
from pipeline.integrations.document import (
    URL_LENGTH_MAX,
    Name,
    Uint8,
    Uint32,
    convert,
    digest,
    milliseconds_of,
    parse_object,
)
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.uplink import Link, Uplink


class HeliumOptions(Options):
    """`downlink_url` is called instead of the one that an uplink brings; it holds the access key.

    `downlink_hosts`: only these hosts may be called because an uplink says so; empty: any.
    """

    downlink_url: SecretStr | None = None
    downlink_hosts: tuple[str, ...] = ()


class _Up(msgspec.Struct):
    dev_eui: Name | None = None
    app_eui: Name | None = None
    devaddr: Name | None = None
    id: Name | None = None
    name: Name | None = None
    fcnt: Uint32 | None = None
    port: Uint8 | None = None
    payload: bytes | None = None
    reported_at: Annotated[float, msgspec.Meta(ge=0)] | None = None
    hotspots: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None
    decoded: dict[str, Any] | None = None
    downlink_url: Annotated[str, msgspec.Meta(max_length=URL_LENGTH_MAX)] | None = None


class Helium(Asynchronous):
    """The dialect; see the module."""

    name = "helium"
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = ("dev_eui", "device_name", "uuid", "dev_addr")
    has_f_port = True
    takes_fields = False
    # As of TTN v2: a device repeats a confirmed uplink up to 8 times, mostly within 15 minutes.
    repeat_window_s = 15 * 60
    options = HeliumOptions

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one uplink. MessageError as the port says."""
        up = convert(parse_object(request.body), _Up)
        dev_eui = lorawan.eui(up.dev_eui, "dev_eui")
        device = DeviceTemplate.fill(
            device_template,
            {
                "dev_eui": dev_eui,
                "device_name": up.name or "",
                "uuid": up.id or "",
                "dev_addr": up.devaddr or "",
            },
        )
        link = Link(
            application_id="",
            device_id=dev_eui,
            dev_eui=dev_eui.upper(),
            urls={"downlink": up.downlink_url} if up.downlink_url else {},
        )
        uplink = Uplink(
            device=device,
            time_ms=milliseconds_of(up.reported_at),
            payload=up.payload or b"",
            fields=_decoded(up.decoded),
            f_port=up.port or 0,
            f_cnt=up.fcnt or 0,
            dev_eui=dev_eui.upper(),
            metadata=_metadata(up, dev_eui),
            link=link,
            # A repeat has the counter and the bytes; the counter alone begins anew at a join.
            repeat_key=digest(f"{dev_eui}|{up.devaddr}|{up.fcnt}|{up.port}", up.payload or b"")
            if up.fcnt is not None
            else "",
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: HeliumOptions) -> Call:
        """Return the POST to the downlink URL. MessageError `no_link`."""
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
        body = {
            "payload_raw": b64encode(downlink.payload or b"").decode(),
            "port": downlink.f_port,
            "confirmed": downlink.confirmed,
        }
        headers = {"content-type": "application/json", "user-agent": lorawan.USER_AGENT}
        return Call(url=url, body=orjson.dumps(body), headers=headers)

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an uplink as the HTTP integration posts it. MessageError: the id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device").upper()
        hotspot = {
            "frequency": 912.2999877929688,
            "id": "112sample",
            "name": "sample-sample-hotspot",
            "reported_at": now_ms,
            "rssi": -54 - counter % 40,
            "snr": 9.800000190734863,
            "spreading": "SF9BW125",
            "status": "success",
            "lat": 37.77,
            "long": -122.41,
        }
        body = {
            "app_eui": "6081F9D16837130E",
            "dev_eui": dev_eui,
            "devaddr": digest(dev_eui)[:8].upper(),
            "fcnt": counter,
            "port": 1,
            "payload": b64encode(payload).decode(),
            "payload_size": len(payload),
            "id": digest(f"{dev_eui}|id"),
            "name": f"sample-{dev_eui[-4:]}",
            "reported_at": now_ms,
            "hotspots": [hotspot],
            "metadata": {"labels": []},
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _decoded(decoded: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what a function of the console made of the bytes, if it could."""
    if not decoded:
        return None
    inner = decoded.get("payload")
    if type(inner) is dict:
        return inner if decoded.get("status", "success") == "success" else None
    return None if "status" in decoded else decoded


def _metadata(up: _Up, dev_eui: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"device_id": dev_eui}
    said = {
        "device_name": up.name,
        "uuid": up.id,
        "app_eui": up.app_eui,
        "dev_addr": up.devaddr,
        "labels": (up.metadata or {}).get("labels"),
    }
    metadata.update({name: value for name, value in said.items() if value})
    if up.hotspots is not None:
        metadata["hotspots"] = up.hotspots
        metadata.update(lorawan.best_reception(up.hotspots))
        for hotspot in up.hotspots[:1]:
            for name, ours in (("frequency", "frequency"), ("spreading", "data_rate")):
                if name in hotspot:
                    metadata[ours] = hotspot[name]
    return metadata


DIALECT = Helium()
