"""How a message was heard, from any dialect's metadata, for the formats of network servers.

In: `metadata` as the dialects document it (TTN v2, The Things Stack v3, ChirpStack, Sigfox).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

_DATA_RATE = re.compile(r"SF(\d{1,2})BW(\d{1,4})")
MHZ = 1_000_000
MHZ_BELOW = 100_000  # A frequency below this is in MHz (TTN v2), any other in Hz.


class Gateway(msgspec.Struct, frozen=True):
    """One gateway that heard it. `timestamp` counts the gateway's microseconds."""

    id: str = ""
    eui: str = ""
    rssi: float | None = None
    snr: float | None = None
    channel: int | None = None
    time: str = ""
    timestamp: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude: float | None = None


class Radio(msgspec.Struct, frozen=True):
    """What is known of a transmission; None where nobody said it."""

    frequency_hz: int | None = None
    spreading_factor: int | None = None
    bandwidth_hz: int | None = None
    coding_rate: str = ""
    gateways: tuple[Gateway, ...] = ()


def radio_of(metadata: dict[str, Any]) -> Radio:
    """Return what the metadata says; what is not as its dialect has it is passed over."""
    spreading = _whole(metadata.get("spreading_factor"))
    bandwidth = _whole(metadata.get("bandwidth"))
    rate = metadata.get("data_rate")
    if type(rate) is str and (found := _DATA_RATE.fullmatch(rate)):
        spreading, bandwidth = int(found[1]), int(found[2]) * 1_000
    coding = metadata.get("coding_rate")
    return Radio(
        frequency_hz=_frequency_hz(metadata.get("frequency")),
        spreading_factor=spreading,
        bandwidth_hz=bandwidth,
        coding_rate=_coding_rate(coding) if type(coding) is str else "",
        gateways=tuple(_gateways(metadata)),
    )


def _frequency_hz(value: Any) -> int | None:
    number = _number(value)
    if number is None or number <= 0:
        return None
    return round(number * MHZ) if number < MHZ_BELOW else round(number)


def _coding_rate(value: str) -> str:
    """Return `4/5` also where ChirpStack says `CR_4_5`."""
    return value[3:].replace("_", "/") if value.startswith("CR_") else value


def _gateways(metadata: dict[str, Any]) -> Iterable[Gateway]:
    for each in _objects(metadata.get("gateways")):
        yield _gateway(each, each.get("gtw_id"), "", each, channel="channel")
    for each in _objects(metadata.get("rx_metadata")):
        ids = each.get("gateway_ids")
        ids = ids if type(ids) is dict else {}
        place = each.get("location")
        name, eui = ids.get("gateway_id"), ids.get("eui")
        yield _gateway(each, name, eui, place, channel="channel_index")
    for each in _objects(metadata.get("rx_info")):
        name = each.get("gatewayId") or each.get("gatewayID")
        yield _gateway(each, name, "", each.get("location"), channel="channel")
    if type(metadata.get("station")) is str:
        yield _gateway(metadata, metadata["station"], "", None, channel="")


def _gateway(said: dict[str, Any], name: Any, eui: Any, place: Any, *, channel: str) -> Gateway:
    place = place if type(place) is dict else {}
    snr = said.get("snr", said.get("loRaSNR"))  # ChirpStack v3 has the second
    return Gateway(
        id=name if type(name) is str else "",
        eui=eui if type(eui) is str else "",
        rssi=_number(said.get("rssi")),
        snr=_number(snr),
        channel=_whole(said.get(channel)) if channel else None,
        time=said["time"] if type(said.get("time")) is str else "",
        timestamp=_whole(said.get("timestamp")),
        latitude=_number(place.get("latitude")),
        longitude=_number(place.get("longitude")),
        altitude=_number(place.get("altitude")),
    )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if type(each) is dict] if type(value) is list else []


def _number(value: Any) -> int | float | None:
    return value if type(value) in (int, float) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
