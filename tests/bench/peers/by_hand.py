"""The job by hand in Python, for the programs on Faust and Quix Streams.

In: an uplink's bytes, and the two attributes of its device. Out: the event, the attributes, the
delivery and the downlink. Written as for the one device type that it is for: no class, no
validation, a compiled `struct`, the fastest JSON. It imports nothing of Funicular, because the
programs run in environments of their own.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import a2b_base64
from struct import Struct
from typing import Any

import orjson

_READING = Struct(">hBHBH")
_COMMAND = Struct(">Bh")


def decode(body: bytes) -> dict[str, Any]:
    """Return the telemetry of an uplink, and its device as `device`."""
    uplink = orjson.loads(body)
    degrees, humidity, millivolts, high, low = _READING.unpack(a2b_base64(uplink["payload_raw"]))
    return {
        "device": f"{uplink['app_id']}:{uplink['dev_id']}",
        "temperature": degrees / 10,
        "humidity": humidity / 2,
        "battery": millivolts / 1000,
        "counter": high << 16 | low,
    }


def route(
    event: dict[str, Any], attributes: dict[str, float] | None
) -> tuple[dict[str, float], dict[str, Any], bytes | None]:
    """Return the device's attributes, the delivery, and the downlink's bytes for one in ten."""
    temperature = event["temperature"]
    warmest = temperature
    if attributes is not None and attributes["warmest"] > temperature:
        warmest = attributes["warmest"]
    delivery = {**event, "warmest": warmest, "weak": event["battery"] < 2.4 and warmest > 20}
    down = encode(temperature - 5) if temperature > 30 and warmest >= temperature else None
    return {"temperature": temperature, "warmest": warmest}, delivery, down


def encode(target: float) -> bytes:
    """Return the bytes that make a device cool down to `target`, in °C."""
    return _COMMAND.pack(1, round(target * 10))


def downlink(device: str, payload: bytes) -> dict[str, Any]:
    """Return the downlink as The Things Network v2 takes it."""
    return {
        "dev_id": device.partition(":")[2],
        "port": 10,
        "confirmed": False,
        "schedule": "replace",
        "payload_raw": b64encode(payload).decode(),
        "device": device,
    }
