"""Actility ThingPark (and KPN): its tunnel interface over HTTP (JSON, JSON untyped), and downlinks.

Format: «Connect your application with HTTPS» of community.thingpark.org, and KPN's reference code
(kpn-iot/lora-reference). With `as_key` each request's `Token` is checked: SHA-256 over parts of
the body, the query and the key. XML is not read.

| root | becomes |
|---|---|
| `DevEUI_uplink` | uplink |
| `DevEUI_location` | location: latitude, longitude, altitude, accuracy |
| `DevEUI_downlink_Sent` | report: sent, or why it was not (`DeliveryFailedCause1` and so on) |
| `DevEUI_notification` | service_data of the service `notification` |

`metadata`: `device_id` (the EUI), `dev_addr`, `customer_id`, `customer_data`; of uplinks also
`f_cnt_down`, `frequency` (MHz), `spreading_factor`, `channel`, `sub_band`, `adr`, `mean_per`,
`gateways` (`Lrrs`) as they came, `gateway_count`, `rssi` and `snr`. Keys (`AppSKey`) are left out.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson
from pydantic import Field, SecretStr, field_validator

from pipeline.errors import MessageError
from pipeline.integrations import lorawan
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Options
from pipeline.integrations.document import (
    bad_field,
    bytes_of_hex,
    digest,
    parse_object,
    rfc3339,
    time_of,
)
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Call, Request
from pipeline.model.uplink import Link, Report, Uplink

_ROOTS = ("DevEUI_uplink", "DevEUI_downlink_Sent", "DevEUI_location", "DevEUI_notification")
_TOKEN_OF = {
    "DevEUI_uplink": ("CustomerID", "DevEUI", "FPort", "FCntUp", "payload_hex"),
    "DevEUI_downlink_Sent": ("CustomerID", "DevEUI", "FPort", "FCntDn"),
    "DevEUI_location": ("CustomerID", "DevEUI"),
    "DevEUI_notification": ("CustomerID", "DevEUI"),
}
_QUERY = ("LrnDevEui", "LrnFPort", "LrnInfos", "AS_ID", "Time")


class ThingParkOptions(Options):
    """`downlink_url`: https://…/thingpark/lrc/rest/downlink. `as_key`: the tunnel interface's
    authentication key, by which requests are checked and downlinks proven (with `as_id`).
    """

    downlink_url: str = ""
    as_id: str = Field(default="", max_length=255)
    as_key: SecretStr | None = None

    @field_validator("downlink_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if url and (not url.startswith(("http://", "https://")) or urlsplit(url).query):
            raise ValueError("must be a URL as https://host/thingpark/lrc/rest/downlink")
        return url


class ThingPark(Asynchronous):
    """The dialect; see the module."""

    name = "thingpark"
    contract = "lorawan"
    device_template = "{dev_eui}"
    device_variables = ("dev_eui", "dev_addr", "customer_id")
    has_f_port = True
    takes_fields = False
    # The tunnel interface tries a few times within minutes, then the uplink is lost.
    repeat_window_s = 15 * 60
    options = ThingParkOptions

    def read(
        self, request: Request, options: ThingParkOptions, device_template: str
    ) -> list[Uplink]:
        """Return the one message. MessageError as the port says; `token`: it is not ThingPark's."""
        if request.body.lstrip()[:1] == b"<":
            raise MessageError("ThingPark sends XML; set its content type to JSON", code="not_json")
        document = parse_object(request.body)
        roots = [root for root in _ROOTS if type(document.get(root)) is dict]
        if len(roots) != 1:
            raise bad_field(_ROOTS[0], f"is missing; a message has one of {', '.join(_ROOTS)}")
        root, body = roots[0], document[roots[0]]
        if options.as_key is not None:
            _check_token(root, body, request.query, options.as_key.get_secret_value())
        dev_eui = lorawan.eui(_text(body, "DevEUI"), f"{root}.DevEUI")
        names = {
            "dev_eui": dev_eui,
            "dev_addr": _text(body, "DevAddr"),
            "customer_id": _text(body, "CustomerID"),
        }
        return [_made(root, body, dev_eui, DeviceTemplate.fill(device_template, names))]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `f_port` or `payload_length`."""
        lorawan.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: ThingParkOptions) -> Call:
        """Return the request to `downlink_url`; `replace` flushes the queue. MessageError
        `no_link`. With `as_key` it is signed, at the moment that the downlink was asked for.
        """
        if not options.downlink_url or not link.device_id:
            raise MessageError(
                "a downlink needs the device's EUI, from an uplink, and `downlink_url` of the"
                " integration's options",
                code="no_link",
            )
        query = {
            "DevEUI": link.device_id.upper(),
            "FPort": str(downlink.f_port),
            "Payload": (downlink.payload or b"").hex(),
        }
        if downlink.confirmed:
            query["Confirmed"] = "1"
        if downlink.queue == "replace":
            query["FlushDownlinkQueue"] = "1"
        if options.as_key is not None:
            query |= {"AS_ID": options.as_id, "Time": rfc3339(downlink.changed_ms)}
            signed = "&".join(f"{name}={value}" for name, value in query.items())
            key = options.as_key.get_secret_value().lower()
            query["Token"] = sha256((signed + key).encode()).hexdigest()
        return Call(
            url=f"{options.downlink_url}?{urlencode(query)}",
            # All is in the query; a body keeps proxies from asking for a length.
            body=b"\n",
            headers={
                "content-type": "application/x-www-form-urlencoded",
                "user-agent": lorawan.USER_AGENT,
            },
        )

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an uplink, without a token. MessageError: the device's id is no EUI."""
        dev_eui = lorawan.eui(device_id, "device").upper()
        gateway = {
            "Lrrid": "3C200E92",
            "Chain": 0,
            "LrrRSSI": -83.0 - counter % 40,
            "LrrSNR": 9.5,
            "LrrESP": -83.461838,
        }
        time = rfc3339(now_ms)
        body = {
            "DevEUI_uplink": {
                "Time": time,
                "DevEUI": dev_eui,
                "DevAddr": digest(dev_eui)[:8].upper(),
                "FPort": 1,
                "FCntUp": counter,
                "ADRbit": 1,
                "MType": 2,
                "FCntDn": 3,
                "payload_hex": payload.hex(),
                "mic_hex": "61fa24cf",
                "Lrcid": "00000127",
                "LrrRSSI": gateway["LrrRSSI"],
                "LrrSNR": 9.5,
                "SpFact": 7,
                "SubBand": "G0",
                "Channel": "LC1",
                "Lrrid": "3C200E92",
                "LrrLAT": 48.933865,
                "LrrLON": 1.195898,
                "Lrrs": {"Lrr": [gateway]},
                "CustomerID": "100000000",
                "CustomerData": {"alr": {"pro": "LORA/Generic", "ver": "1"}},
                "Frequency": 868.1,
            }
        }
        query = {"LrnDevEui": dev_eui, "LrnFPort": "1", "LrnInfos": "sample"}
        headers = {"content-type": "application/json"}
        return Request(body=orjson.dumps(body), query=query, headers=headers)


def _check_token(root: str, body: dict[str, Any], query: dict[str, str], key: str) -> None:
    """Raise MessageError `token` where the request was not made with the key."""
    token = query.get("Token", "")
    elements = "".join(_text(body, name) for name in _TOKEN_OF[root])
    texts = [elements]
    if root == "DevEUI_location":
        # ThingPark signs the EUI of locations in lower case.
        texts.append(_text(body, "CustomerID") + _text(body, "DevEUI").lower())
    # A plus that was not escaped reads as a space.
    shown = [(name, query[name].replace(" ", "+")) for name in _QUERY if name in query]
    signed = "&".join(f"{name}={value}" for name, value in shown)
    for text in texts:
        made = sha256(f"{text}{signed}{key.lower()}".encode(errors="surrogatepass")).hexdigest()
        if hmac.compare_digest(made, token.lower().encode("ascii", "replace").decode()):
            return
    raise MessageError("the request's Token is not of this `as_key`", code="token", field="Token")


def _made(root: str, body: dict[str, Any], dev_eui: str, device: str) -> Uplink:
    common: dict[str, Any] = {
        "device": device,
        "time_ms": time_of(_text(body, "Time"), f"{root}.Time"),
        "dev_eui": dev_eui.upper(),
        "link": Link(device_id=dev_eui, dev_eui=dev_eui.upper()),
    }
    if root == "DevEUI_downlink_Sent":
        return Uplink(type=None, reports=(_report(body),), **common)
    metadata = _metadata(body, dev_eui)
    if root == "DevEUI_location":
        places = {
            "DevLAT": "latitude", "DevLON": "longitude", "DevAlt": "altitude", "DevAcc": "accuracy",
        }  # fmt: skip
        fields = {ours: _number(body, name, root) for name, ours in places.items()}
        known = {name: value for name, value in fields.items() if value is not None}
        return Uplink(type="location", fields=known, metadata=metadata, **common)
    if root == "DevEUI_notification":
        said = {name: value for name, value in body.items() if "Key" not in name}
        service = {**metadata, "service": "notification"}
        return Uplink(type="service_data", fields=said, metadata=service, **common)
    f_cnt = _whole(body, "FCntUp", root, 0xFFFFFFFF)
    payload = bytes_of_hex(_text(body, "payload_hex"), f"{root}.payload_hex")
    time = _text(body, "Time")
    return Uplink(
        payload=payload,
        f_port=_whole(body, "FPort", root, 0xFF) or 0,
        f_cnt=f_cnt or 0,
        confirmed=_text(body, "MType") == "4",
        metadata={**metadata, **_radio(body, root)},
        repeat_key=digest(f"{dev_eui}|{f_cnt}|{time}", payload) if time else "",
        **common,
    )


def _report(body: dict[str, Any]) -> Report:
    detail: dict[str, Any] = {"event": "DevEUI_downlink_Sent"}
    causes = [_text(body, f"DeliveryFailedCause{number}") for number in (1, 2, 3)]
    told = [cause for cause in causes if cause and cause != "00"]
    f_cnt = _whole(body, "FCntDn", "DevEUI_downlink_Sent", 0xFFFFFFFF)
    if f_cnt is not None:
        detail["f_cnt"] = f_cnt
    if _text(body, "DeliveryStatus") == "1":
        return Report(state=State.ACCEPTED, detail={**detail, "transmitted": True})
    reason = "not_delivered" if not told else f"not_delivered_{told[0].lower()}"[:64]
    return Report(state=State.FAILED, reason=reason, detail={**detail, "causes": told})


def _metadata(body: dict[str, Any], dev_eui: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"device_id": dev_eui}
    for name, ours in (("DevAddr", "dev_addr"), ("CustomerID", "customer_id")):
        if _text(body, name):
            metadata[ours] = _text(body, name)
    if body.get("CustomerData") is not None:
        metadata["customer_data"] = body["CustomerData"]
    return metadata


def _radio(body: dict[str, Any], root: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    numbers = {
        "FCntDn": "f_cnt_down", "Frequency": "frequency", "SpFact": "spreading_factor",
        "LrrRSSI": "rssi", "LrrSNR": "snr", "MeanPER": "mean_per",
    }  # fmt: skip
    for name, ours in numbers.items():
        value = _number(body, name, root)
        if value is not None:
            found[ours] = value
    for name, ours in (("Channel", "channel"), ("SubBand", "sub_band")):
        if _text(body, name):
            found[ours] = _text(body, name)
    if _text(body, "ADRbit"):
        found["adr"] = _text(body, "ADRbit") == "1"
    heard = body.get("Lrrs")
    gateways = heard.get("Lrr") if type(heard) is dict else None
    if type(gateways) is list:
        found["gateways"] = gateways
        found["gateway_count"] = len(gateways)
    return found


def _text(body: dict[str, Any], name: str) -> str:
    """Return a value as text: «JSON untyped» quotes numbers, typed JSON does not."""
    value = body.get(name)
    return str(value) if type(value) in (str, int) else ""


def _number(body: dict[str, Any], name: str, root: str) -> int | float | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    if type(value) in (int, float):
        return value if abs(value) < 2**53 else None
    try:
        number = float(value) if type(value) is str else float("nan")
    except ValueError:
        number = float("nan")
    if not abs(number) < 2**53:
        raise bad_field(f"{root}.{name}", "must be a number")
    return int(number) if number.is_integer() else number


def _whole(body: dict[str, Any], name: str, root: str, most: int) -> int | None:
    number = _number(body, name, root)
    if number is None:
        return None
    if number != int(number) or not 0 <= number <= most:
        raise bad_field(f"{root}.{name}", f"must be a whole number from 0 to {most}")
    return int(number)


DIALECT = ThingPark()
