"""What LoRaWAN network servers have in common: the limits of a downlink, radio metadata, URLs that
an uplink brought along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson

from pipeline import __version__
from pipeline.errors import MessageError
from pipeline.model.downlink import Downlink
from pipeline.model.record import ID_LENGTH_MAX

# LoRaWAN 1.0.4 section 4.3.2: 0 is for MAC commands, 224 for tests, 225 and above are reserved.
F_PORT_MIN = 1
F_PORT_MAX = 223
# The longest application payload of any region and data rate (RP002-1.0.4: EU868 DR4 and above).
PAYLOAD_BYTES_MAX = 242
USER_AGENT = f"funicular/{__version__}"
_EUI = re.compile(r"[0-9A-Fa-f]{16}")


def check(downlink: Downlink) -> None:
    """Raise MessageError where LoRaWAN cannot carry the downlink: `f_port`, `payload_length`."""
    f_port = downlink.f_port
    if f_port is None or not F_PORT_MIN <= f_port <= F_PORT_MAX:
        said = "it has none" if f_port is None else f"{f_port} is not"
        raise MessageError(
            f"a LoRaWAN downlink needs an f_port from {F_PORT_MIN} to {F_PORT_MAX}; {said}",
            code="f_port",
            field="f_port",
        )
    length = len(downlink.payload or b"")
    if not 1 <= length <= PAYLOAD_BYTES_MAX:
        raise MessageError(
            f"a LoRaWAN downlink carries 1 to {PAYLOAD_BYTES_MAX} bytes, not {length}",
            code="payload_length",
            field="payload",
            limit=PAYLOAD_BYTES_MAX,
        )


def eui(value: str | None, field: str) -> str:
    """Return a device's EUI-64 in lower case.

    MessageError: `device_missing` (there is none), `field` (it is not 16 hexadecimal digits).
    """
    if not value:
        raise MessageError(
            f"`{field}` is missing: it names the device", code="device_missing", field=field
        )
    if not _EUI.fullmatch(value):
        raise MessageError(
            f"`{field}` must be an EUI of 16 hexadecimal digits", code="field", field=field
        )
    return value.lower()


def reference_in(answer: bytes, name: str, prefix: str = "") -> str:
    """Return what an answer (a JSON object) calls the downlink: one text or whole number, behind
    `prefix`. Empty where it does not say: that takes nothing back of what was handed over.
    """
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return ""
    said = value.get(name) if type(value) is dict else None
    text = str(said) if type(said) in (str, int) else ""
    return prefix + text if 0 < len(text) <= ID_LENGTH_MAX - len(prefix) else ""


def best_reception(gateways: Iterable[Any]) -> dict[str, Any]:
    """Return `rssi` and `snr` of the gateway that heard the uplink best, and `gateway_count`.

    `gateways` are objects with `rssi` and `snr`, as both of The Things Network's formats have.
    """
    best: dict[str, Any] | None = None
    best_rssi = float("-inf")
    count = 0
    for gateway in gateways:
        if type(gateway) is not dict:
            continue
        count += 1
        rssi = gateway.get("rssi")
        if isinstance(rssi, int | float) and rssi > best_rssi:
            best, best_rssi = gateway, rssi
    if best is None:
        return {"gateway_count": count}
    reception = {"gateway_count": count, "rssi": best["rssi"]}
    if "snr" in best:
        reception["snr"] = best["snr"]
    return reception


def callable_url(url: str, hosts: tuple[str, ...]) -> str:
    """Return a URL that an uplink brought along, if it may be called.

    MessageError (`no_link`): it is no HTTP URL, or its host is not one of `hosts` (empty: any).
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise MessageError("the uplink's downlink URL cannot be read", code="no_link") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise MessageError("the uplink's downlink URL is not an HTTP URL", code="no_link")
    if hosts and host not in hosts:
        raise MessageError(
            f"the uplink's downlink URL is on `{host}`, which `downlink_hosts` does not allow",
            code="no_link",
            host=host,
        )
    return url
