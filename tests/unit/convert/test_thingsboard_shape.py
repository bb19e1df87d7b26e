"""The shape that ThingsBoard's converters return."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.convert.reading import Reading
from pipeline.convert.thingsboard import has_shape, read
from pipeline.errors import MessageError

NOW = 1_700_000_000_000
T = NOW - 1000


def read_one(value: Any, device: str | None = None) -> list[Reading]:
    return read(value, device=device, time_ms=NOW, readings_max=100)


def telemetry(value: Any) -> list[tuple[int | None, dict[str, Any]]]:
    readings = read_one({"deviceName": "A", "telemetry": value})
    return [(reading.time_ms, reading.telemetry) for reading in readings]


def test_everything_at_once() -> None:
    """Names, types, customer, group, attributes and telemetry of the documented result."""
    result = {
        "deviceName": "Device A",
        "deviceType": "thermostat",
        "customerName": "Company Name",
        "groupName": "Thermostats",
        "attributes": {"model": "Model A", "serialNumber": "SN-111"},
        "telemetry": {"temperature": 42, "humidity": 80},
    }

    assert read_one(result) == [
        Reading(
            device="Device A",
            telemetry={"temperature": 42, "humidity": 80},
            attributes={"model": "Model A", "serialNumber": "SN-111"},
            time_ms=NOW,
            device_kind="device",
            device_type="thermostat",
            customer="Company Name",
            group="Thermostats",
        )
    ]


def test_asset() -> None:
    """An asset stands in place of a device."""
    (reading,) = read_one({"assetName": "Hall", "assetType": "room", "telemetry": {"a": 1}})

    assert (reading.device, reading.device_kind, reading.device_type) == ("Hall", "asset", "room")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1}, [(NOW, {"a": 1})]),
        ({"ts": T, "values": {"a": 1}}, [(T, {"a": 1})]),
        ([{"ts": T, "values": {"a": 1}}, {"ts": T + 1, "values": {"a": 2}}],
         [(T, {"a": 1}), (T + 1, {"a": 2})]),
        ([{"a": 1}, {"b": 2}], [(NOW, {"a": 1}), (NOW, {"b": 2})]),
        ([{"ts": T + 1, "values": {"a": 2}}, {"ts": T, "values": {"a": 1}}, {"a": 3}],
         [(T, {"a": 1}), (T + 1, {"a": 2}), (NOW, {"a": 3})]),
        ({"values": {"a": 1}}, [(NOW, {"a": 1})]),
        ({"ts": str(T), "values": {"a": 1}}, [(T, {"a": 1})]),
        ({"ts": float(T), "values": {"a": 1}}, [(T, {"a": 1})]),
        ({"ts": 5, "temperature": 1}, [(NOW, {"ts": 5, "temperature": 1})]),
        ({"values": 5, "other": 1}, [(NOW, {"values": 5, "other": 1})]),
        ({}, [(NOW, {})]),
        ([], [(NOW, {})]),
        (None, [(NOW, {})]),
    ],
)  # fmt: skip
def test_forms_of_telemetry(value: Any, expected: Any) -> None:
    """Values alone, with a time, and lists of both; in order of time."""
    assert telemetry(value) == expected


def test_attributes_come_once() -> None:
    """Of several sets of values the first has the attributes."""
    readings = read_one({"deviceName": "A", "attributes": {"v": 1}, "telemetry": [{"a": 1}] * 3})

    assert [reading.attributes for reading in readings] == [{"v": 1}, {}, {}]


def test_several_devices() -> None:
    """An array has several devices, each with its own."""
    readings = read_one([
        {"deviceName": "A", "telemetry": {"a": 1}},
        {"assetName": "B", "attributes": {"b": 2}},
        {"deviceName": "A", "telemetry": {"a": 3}},
    ])  # fmt: skip

    assert [(r.device, r.telemetry, r.attributes) for r in readings] == [
        ("A", {"a": 1}, {}), ("B", {}, {"b": 2}), ("A", {"a": 3}, {}),
    ]  # fmt: skip
    assert read_one([]) == []


def test_the_dialect_may_have_named_the_device() -> None:
    """Then a name is not needed, and a name of the converter's comes first."""
    assert read_one({"telemetry": {"a": 1}}, device="D")[0].device == "D"
    assert read_one({"deviceName": "A", "telemetry": {"a": 1}}, device="D")[0].device == "A"
    assert read_one({"deviceName": 17})[0].device == "17"


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        (5, "field", ""),
        ("A", "field", ""),
        (None, "field", ""),
        ([5], "field", "[0]"),
        ({"telemetry": {}}, "device_missing", "deviceName"),
        ([{"deviceName": "A"}, {}], "device_missing", "[1].deviceName"),
        ({"deviceName": ""}, "device_missing", "deviceName"),
        ({"deviceName": True}, "field", "deviceName"),
        ({"deviceName": {"a": 1}}, "field", "deviceName"),
        ({"deviceName": "A", "assetName": "B"}, "field", "assetName"),
        ({"deviceName": "A" * 256}, "device_name", None),
        ({"deviceName": "A\n"}, "device_name", None),
        ({"deviceName": "A", "deviceType": []}, "field", "deviceType"),
        ({"deviceName": "A", "customerName": 1.5}, "field", "customerName"),
        ({"deviceName": "A", "attributes": [1]}, "field", "attributes"),
        ({"deviceName": "A", "telemetry": 5}, "field", "telemetry"),
        ({"deviceName": "A", "telemetry": [5]}, "field", "telemetry[0]"),
        ({"deviceName": "A", "telemetry": [{}, {}, {"ts": "x", "values": {}}]}, "field",
         "telemetry[2].ts"),
        ({"deviceName": "A", "telemetry": {"ts": 1.5, "values": {}}}, "field", "telemetry.ts"),
        ({"deviceName": "A", "telemetry": {"ts": True, "values": {}}}, "field", "telemetry.ts"),
        ({"deviceName": "A", "telemetry": {"ts": -1, "values": {}}}, "field", "telemetry.ts"),
        ({"deviceName": "A", "telemetry": {"ts": 10**18, "values": {}}}, "field", "telemetry.ts"),
        ({"deviceName": "A", "telemetry": {"ts": 1, "values": 5}}, "field", "telemetry.values"),
        ([{"deviceName": "A", "telemetry": [{"ts": 1, "values": 5}]}], "field",
         "[0].telemetry[0].values"),
    ],
)  # fmt: skip
def test_bad_results_say_what_and_where(value: Any, code: str, field: str | None) -> None:
    """What cannot be used is refused with the place in the result."""
    with pytest.raises(MessageError) as caught:
        read_one(value)

    assert caught.value.code == code
    assert caught.value.detail.get("field") == field


def test_sets_of_values_are_limited() -> None:
    """A message cannot become more events than the limit."""
    value = {"deviceName": "A", "telemetry": [{"a": 1}] * 101}
    with pytest.raises(MessageError, match="more than 100") as caught:
        read_one(value)
    assert caught.value.code == "readings"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"deviceName": "A", "x": 1}, True),
        ({"assetName": "A"}, True),
        ({"telemetry": {}}, True),
        ({"attributes": {}, "deviceType": "t"}, True),
        ({"telemetry": {}, "x": 1}, False),
        ({"temperature": 1}, False),
        ([], False),
        (None, False),
    ],
)
def test_shape_without_a_converter(value: Any, expected: bool) -> None:
    """Plain readings are not taken for the shape; what names its device is."""
    assert has_shape(value) is expected
