"""The job that Funicular and its peers do: what comes in, and what must have come out of it.

In: the number of an uplink and how many devices there are. Out: the uplink's record, and, worked
out from the number alone and not from the bytes, the delivery, the downlink and the state that are
right. So no program's decoding is checked by its own.

The job: a TTN v2 uplink of about 670 bytes; 8 bytes of payload are four fields; four nodes: two
attributes of the device are set (the temperature, and the warmest so far), one delivery is sent,
a filter lets one message in ten pass, and a downlink goes out for it, encoded to 3 bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

TENANT = "bench"
APPLICATION = "fleet"
HOT_EVERY = 10
F_PORT = 10
_TIME = "2026-11-21T10:00:00.123456789Z"


class Uplink(NamedTuple):
    """One record of `uplink.received`."""

    key: str
    value: bytes
    headers: list[tuple[str, bytes]]


class Right(NamedTuple):
    """What must come of one uplink; `downlink` are the bytes for the device, or None."""

    device: str
    delivery: dict[str, Any]
    downlink: bytes | None


def device_of(number: int, devices: int) -> str:
    """Return the name of the device that sends uplink `number`."""
    return f"{APPLICATION}:dev-{number % devices:06}"


def number_of(device: str, counter: int, devices: int) -> int:
    """Return which uplink it was; ValueError: no device of the job is called so."""
    return counter * devices + int(device.rpartition("-")[2])


def is_hot(number: int, devices: int) -> bool:
    """Whether the uplink makes a downlink: one in ten, each time of other devices."""
    return (number + number // devices) % HOT_EVERY == 0


def downlinks_of(count: int, devices: int) -> int:
    """Return how many downlinks the first `count` uplinks make."""
    return sum(is_hot(number, devices) for number in range(count))


def tenths(number: int, devices: int) -> int:
    """Return the temperature in 0.1 °C: 31 to 35.9 where it is hot, else -4 to 23.9, each time
    another one.
    """
    if is_hot(number, devices):
        return 310 + number % 50
    return (number * 7 + number // devices * 13) % 280 - 40


def uplink(number: int, devices: int, integration: str) -> Uplink:
    """Return one uplink as the door writes it."""
    counter = number // devices
    payload = (
        tenths(number, devices).to_bytes(2, "big", signed=True)
        + bytes([number % 201])
        + (2_000 + number % 1_600).to_bytes(2, "big")
        + counter.to_bytes(3, "big")
    )
    device_id = f"dev-{number % devices:06}"
    gateway = {
        "gtw_id": "eui-b827ebfffe8db887", "gtw_trusted": True, "timestamp": number,
        "time": "2026-11-21T10:00:00Z", "channel": number % 8, "rssi": -25 - number % 60,
        "snr": 5, "rf_chain": 0, "latitude": 52.1234, "longitude": 6.1234, "altitude": 6,
    }  # fmt: skip
    body = {
        "app_id": APPLICATION,
        "dev_id": device_id,
        "hardware_serial": f"{number % devices:016X}",
        "port": 1,
        "counter": counter,
        "is_retry": False,
        "confirmed": False,
        "payload_raw": b64encode(payload).decode(),
        "metadata": {
            "time": _TIME, "frequency": 868.1, "modulation": "LORA", "data_rate": "SF7BW125",
            "airtime": 46336000, "coding_rate": "4/5", "gateways": [gateway],
            "latitude": 52.2345, "longitude": 6.2345, "altitude": 2,
        },
        "downlink_url": "https://ttn.example/api/v2/down/fleet/bench?key=ttn-account-v2.dGhlIGtleQ",
    }  # fmt: skip
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{number:032x}",
        "ce_type": "funicular.uplink.received",
        "ce_time": "2026-11-21T10:00:00Z",
        "ce_tenant": TENANT,
        "ce_integration": integration,
        "content-type": "application/json",
    }
    return Uplink(
        f"{TENANT}/{APPLICATION}:{device_id}",
        orjson.dumps(body),
        [(name, text.encode()) for name, text in headers.items()],
    )


def telemetry(number: int, devices: int) -> dict[str, Any]:
    """Return the four fields that the payload holds."""
    return {
        "temperature": tenths(number, devices) / 10,
        "humidity": number % 201 / 2,
        "battery": (2_000 + number % 1_600) / 1_000,
        "counter": number // devices,
    }


def right(count: int, devices: int) -> Iterator[Right]:
    """Yield what must come of each of the first `count` uplinks, in their order."""
    warmest: dict[str, float] = {}
    for number in range(count):
        device = device_of(number, devices)
        fields = telemetry(number, devices)
        temperature = fields["temperature"]
        highest = warmest[device] = max(warmest.get(device, temperature), temperature)
        delivery = {
            "device": device,
            **fields,
            "warmest": highest,
            "weak": fields["battery"] < 2.4 and highest > 20,
        }
        down = None
        if is_hot(number, devices):
            target = tenths(number, devices) - 50
            down = bytes([1]) + target.to_bytes(2, "big")
        yield Right(device, delivery, down)


def right_state(count: int, devices: int) -> dict[str, dict[str, float]]:
    """Return each device's two attributes after the first `count` uplinks."""
    state: dict[str, dict[str, float]] = {}
    for each in right(count, devices):
        fields = each.delivery
        state[each.device] = {"temperature": fields["temperature"], "warmest": fields["warmest"]}
    return state


class Found(NamedTuple):
    """What a contestant wrote: events (of each uplink the device and its telemetry), deliveries,
    downlinks as (device, bytes), state as device → attributes; records in the order that they were
    written in for a device. None: it does not do that.
    """

    events: list[dict[str, Any]] | None = None
    deliveries: list[dict[str, Any]] | None = None
    downlinks: list[tuple[str, bytes]] | None = None
    state: Mapping[str, Mapping[str, float]] | None = None


def faults(found: Found, count: int, devices: int, *, once: bool) -> list[str]:
    """Return what is wrong in words; empty: all is right. Every record and device is compared.
    `once`: exactly once was promised, so that nothing may be there twice, and each device's
    records must be in its order.
    """
    expected = list(right(count, devices))
    wrong = []
    if found.events is not None:
        due = [{"device": device_of(n, devices)} | telemetry(n, devices) for n in range(count)]
        wrong += _wrong("events", found.events, due, devices, once=once)
    if found.deliveries is not None:
        due = [each.delivery for each in expected]
        wrong += _wrong("deliveries", found.deliveries, due, devices, once=once)
    if found.downlinks is not None:
        wrong += _wrong_downlinks(found.downlinks, expected, once=once)
    if found.state is not None:
        wrong += _wrong_state(found.state, right_state(count, devices))
    return wrong


def _wrong(
    what: str,
    found: list[dict[str, Any]],
    due: list[dict[str, Any]],
    devices: int,
    *,
    once: bool,
) -> list[str]:
    seen = bytearray(len(due))
    last: dict[str, int] = {}
    differing: list[dict[str, Any]] = []
    disordered = doubled = 0
    for each in found:
        device, counter = each["device"], each["counter"]
        number = number_of(device, counter, devices)
        if number >= len(due) or due[number] != each:
            differing.append(each)
        else:
            doubled += seen[number]
            seen[number] = 1
        disordered += counter < last.get(device, 0)
        last[device] = counter
    counts = {"missing": len(due) - sum(seen), "wrong": len(differing)}
    if once:
        counts |= {"doubled": doubled, "out of order": disordered}
    said = [f"{count} {what} are {how}" for how, count in counts.items() if count]
    return said + [f"one that is wrong: {each}" for each in differing[:1]]


def _wrong_downlinks(
    found: list[tuple[str, bytes]], expected: list[Right], *, once: bool
) -> list[str]:
    left = Counter((each.device, each.downlink) for each in expected if each.downlink is not None)
    left.subtract(found)
    missing = sum(count for count in left.values() if count > 0)
    more = -sum(count for count in left.values() if count < 0)
    counts = {"missing": missing} | ({"doubled or wrong": more} if once else {})
    return [f"{count} downlinks are {how}" for how, count in counts.items() if count]


def _wrong_state(
    found: Mapping[str, Mapping[str, float]], due: Mapping[str, Mapping[str, float]]
) -> list[str]:
    differing = [name for name in due if found.get(name) != due[name]]
    more = len(found.keys() - due.keys())
    said = [f"{more} devices have state and should not"] if more else []
    if differing:
        name = differing[0]
        said.append(
            f"the state of {len(differing)} devices is wrong; {name} has {found.get(name)}"
            f" and should have {due[name]}"
        )
    return said
