"""The shape that ThingsBoard's converters return → readings.

    {"deviceName": "A", "deviceType": "thermostat", "customerName": "C", "groupName": "G",
     "attributes": {…}, "telemetry": {…}}

or an array of these. `assetName` and `assetType` may stand in place of the device's. `telemetry` is
`{key: value}`, `{"ts": ms, "values": {…}}`, or an array of either.
Source: ThingsBoard PE's documentation of uplink data converters, and its converter library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import msgspec

from pipeline.convert.reading import Reading
from pipeline.errors import MessageError
from pipeline.integrations.dialect import check_device_name

_NAMES = frozenset({"deviceName", "assetName"})
_KEYS = _NAMES | {
    "deviceType", "assetType", "customerName", "groupName", "attributes", "telemetry",
}  # fmt: skip
_TIMED = frozenset({"ts", "values"})
_TIME_MAX_MS = 253_402_300_799_999  # the end of the year 9999


class _Owner(msgspec.Struct, frozen=True):
    """Whose values they are."""

    device: str
    kind: Literal["device", "asset"]
    type: str
    customer: str
    group: str


def has_shape(value: Any) -> bool:
    """Return whether a JSON object that no converter made is meant in this shape."""
    return type(value) is dict and (
        not _NAMES.isdisjoint(value)
        or (("telemetry" in value or "attributes" in value) and value.keys() <= _KEYS)
    )


def read(value: Any, *, device: str | None, time_ms: int, readings_max: int) -> list[Reading]:
    """Return the readings of a converter's result, in order of time for each device.

    `device`: the name that the dialect gave, used where the result gives none; `time_ms`: the time
    of values without `ts`. MessageError: `device_missing`, `device_name`, `field`
    (`detail["field"]` is where), `readings` (more than `readings_max`).
    """
    items = value if type(value) is list else [value]
    readings: list[Reading] = []
    for index, item in enumerate(items):
        path = f"[{index}]." if type(value) is list else ""
        if type(item) is not dict:
            _refuse(path.rstrip("."), "must be an object with deviceName and telemetry")
        owner = _owner(item, path, device)
        attributes = _object(item, "attributes", path)
        sets = timed_sets(item.get("telemetry"), f"{path}telemetry", time_ms)
        for at, (ts, values) in enumerate(sets or [(time_ms, {})]):
            readings.append(
                Reading(
                    device=owner.device,
                    telemetry=values,
                    attributes=attributes if at == 0 else {},
                    time_ms=ts,
                    device_kind=owner.kind,
                    device_type=owner.type,
                    customer=owner.customer,
                    group=owner.group,
                )
            )
        if len(readings) > readings_max:
            raise too_many(readings_max)
    return readings


def too_many(readings_max: int) -> MessageError:
    """Return the error of a message that would become too many events."""
    return MessageError(
        f"one message has more than {readings_max} sets of values",
        code="readings",
        limit=readings_max,
    )


def timed_sets(telemetry: Any, path: str, time_ms: int) -> list[tuple[int, dict[str, Any]]]:
    """Return telemetry in any of its forms as (time, values), in order of time."""
    if telemetry is None:
        return []
    if type(telemetry) is list:
        sets = [
            _timed_set(item, f"{path}[{index}]", time_ms) for index, item in enumerate(telemetry)
        ]
        sets.sort(key=_time)  # stable: sets of one time stay as they were given
        return sets
    return [_timed_set(telemetry, path, time_ms)]


def _time(timed: tuple[int, dict[str, Any]]) -> int:
    return timed[0]


def _timed_set(item: Any, path: str, time_ms: int) -> tuple[int, dict[str, Any]]:
    if type(item) is not dict:
        _refuse(path, "must be an object of values, or of ts and values")
    if "values" not in item or not item.keys() <= _TIMED:
        return time_ms, item
    values = item["values"]
    if type(values) is not dict:
        _refuse(f"{path}.values", "must be an object")
    ts = item.get("ts")
    return (time_ms if ts is None else _milliseconds(ts, f"{path}.ts")), values


def _milliseconds(ts: Any, path: str) -> int:
    """Return a time: ThingsBoard takes whole numbers, doubles without a fraction, and digits."""
    if isinstance(ts, str) and ts.isascii() and ts.isdecimal() and len(ts) <= 15:
        ts = int(ts)
    if isinstance(ts, float) and ts.is_integer():
        ts = int(ts)
    if isinstance(ts, bool) or not isinstance(ts, int) or not 0 <= ts <= _TIME_MAX_MS:
        _refuse(path, "must be a time in milliseconds since 1970")
    return ts


def _owner(item: Mapping[str, Any], path: str, device: str | None) -> _Owner:
    device_name = _text(item, "deviceName", path)
    asset_name = _text(item, "assetName", path)
    if device_name and asset_name:
        _refuse(f"{path}assetName", "stands beside deviceName; one of the two names the device")
    name = device_name or asset_name or device
    if not name:
        raise MessageError(
            f"`{path}deviceName` is missing (or assetName): it names the device",
            code="device_missing",
            field=f"{path}deviceName",
        )
    check_device_name(name)
    kind: Literal["device", "asset"] = "asset" if asset_name else "device"
    return _Owner(
        device=name,
        kind=kind,
        type=_text(item, f"{kind}Type", path),
        customer=_text(item, "customerName", path),
        group=_text(item, "groupName", path),
    )


def _text(item: Mapping[str, Any], key: str, path: str) -> str:
    value = item.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        _refuse(f"{path}{key}", "must be text")
    return str(value)


def _object(item: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    value = item.get(key)
    if value is None:
        return {}
    if type(value) is not dict:
        _refuse(f"{path}{key}", "must be an object")
    return value


def _refuse(path: str, what: str) -> NoReturn:
    raise MessageError(f"`{path}` {what}", code="field", field=path)
