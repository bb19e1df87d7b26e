"""The bytes of Acme's devices, from the devices' side: readings → bytes up, bytes down → orders.

The layouts are those of `rules/converters/acme`; the tests hold them to the examples there.
Numbers are big endian. ValueError: a downlink that this device cannot read; it ignores it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_THERMOSTAT_UP = struct.Struct(">hBB")
_THERMOSTAT_DOWN = struct.Struct(">Bh")
_TRACKER_UP = struct.Struct(">iiBB")
_TRACKER_DOWN = struct.Struct(">H")
_METER_UP = struct.Struct(">IHh")
_METER_DOWN = struct.Struct(">BH5x")


class Cooling(NamedTuple):
    """What a thermostat is told: whether to cool, and to which temperature in °C."""

    cooling: bool
    target: float


class Valve(NamedTuple):
    """What a meter is told: whether its valve is open, and the minutes between reports."""

    is_open: bool
    interval: int


def thermostat_reading(temperature: float, battery: float, *, fan: bool) -> bytes:
    """Return a thermostat's uplink: °C, battery in %."""
    return _THERMOSTAT_UP.pack(round(temperature * 10), round(battery), int(fan))


def thermostat_order(payload: bytes) -> Cooling:
    """Return what a downlink tells a thermostat."""
    cooling, tenths = _read(_THERMOSTAT_DOWN, payload)
    return Cooling(bool(cooling), tenths / 10)


def tracker_position(latitude: float, longitude: float, battery: float, *, moving: bool) -> bytes:
    """Return a tracker's uplink: degrees, battery in %."""
    return _TRACKER_UP.pack(
        round(latitude * 100_000), round(longitude * 100_000), round(battery), int(moving)
    )


def tracker_order(payload: bytes) -> int:
    """Return the minutes between reports that a downlink tells a tracker."""
    (interval,) = _read(_TRACKER_DOWN, payload)
    return _minutes(interval)


def meter_reading(volume: int, flow: int, temperature: float) -> bytes:
    """Return a meter's uplink: litres in all (the counter has 32 bits), litres an hour, °C."""
    return _METER_UP.pack(volume % 2**32, flow, round(temperature * 10))


def meter_order(payload: bytes) -> Valve:
    """Return what a downlink tells a meter."""
    valve, interval = _read(_METER_DOWN, payload)
    return Valve(bool(valve), _minutes(interval))


def _read(layout: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise ValueError(f"a downlink has {layout.size} bytes here, this one has {len(payload)}")
    return layout.unpack(payload)


def _minutes(interval: int) -> int:
    if interval < 1:
        raise ValueError("an interval has at least 1 minute")
    return interval
