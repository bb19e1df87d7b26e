"""The devices' side of the layouts, held to the examples of the converters in `rules/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.demo import codec

ACME = Path(__file__).parents[3] / "rules" / "converters" / "acme"


def examples(model: str, codec_name: str) -> list[Any]:
    entry = YAML(typ="safe").load((ACME / f"{model}.yaml").read_text())[codec_name]
    return [
        pytest.param(example, id=example["description"])
        for example in entry["examples"]
        if "errors" not in example["output"]
    ]


@pytest.mark.parametrize("example", examples("thermostat", "uplinkDecoder"))
def test_thermostat_speaks_as_its_converter_hears(example: dict[str, Any]) -> None:
    """A thermostat's bytes are those that the converter's example decodes to its reading."""
    said = example["output"]["data"]

    payload = codec.thermostat_reading(
        said["temperature"], said["battery"], fan=said["fan"] == "on"
    )

    assert payload == bytes(example["input"]["bytes"])


@pytest.mark.parametrize("example", examples("tracker", "uplinkDecoder"))
def test_tracker_speaks_as_its_converter_hears(example: dict[str, Any]) -> None:
    """A tracker's bytes are those that the converter's example decodes to its position."""
    said = example["output"]["data"]

    payload = codec.tracker_position(
        said["latitude"], said["longitude"], said["battery"], moving=said["moving"]
    )

    assert payload == bytes(example["input"]["bytes"])


@pytest.mark.parametrize("example", examples("meter", "uplinkDecoder"))
def test_meter_speaks_as_its_converter_hears(example: dict[str, Any]) -> None:
    """A meter's bytes are those that the converter's example decodes to its reading."""
    said = example["output"]["data"]

    payload = codec.meter_reading(said["volume"], said["flow"], said["temperature"])

    assert payload == bytes(example["input"]["bytes"])


@pytest.mark.parametrize("example", examples("thermostat", "downlinkEncoder"))
def test_thermostat_hears_what_its_converter_says(example: dict[str, Any]) -> None:
    """A thermostat reads from the encoder's bytes what was to be encoded."""
    asked = example["input"]["data"]

    order = codec.thermostat_order(bytes(example["output"]["bytes"]))

    assert order == (asked["cooling"], asked["target"])


@pytest.mark.parametrize("example", examples("tracker", "downlinkEncoder"))
def test_tracker_hears_what_its_converter_says(example: dict[str, Any]) -> None:
    """A tracker reads from the encoder's bytes the interval that was to be encoded."""
    order = codec.tracker_order(bytes(example["output"]["bytes"]))

    assert order == example["input"]["data"]["interval"]


@pytest.mark.parametrize("example", examples("meter", "downlinkEncoder"))
def test_meter_hears_what_its_converter_says(example: dict[str, Any]) -> None:
    """A meter reads from the encoder's bytes what was to be encoded."""
    asked = example["input"]["data"]

    order = codec.meter_order(bytes(example["output"]["bytes"]))

    assert order == (asked["valve"] == "open", asked["interval"])


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        (codec.thermostat_order, b"\1\0"),
        (codec.tracker_order, b"\0\0"),
        (codec.tracker_order, b""),
        (codec.meter_order, bytes(7)),
        (codec.meter_order, bytes(8)),
    ],
)
def test_unreadable_downlinks_are_refused(read: Any, payload: bytes) -> None:
    """A downlink of another length, or with an interval of nothing, is a ValueError."""
    with pytest.raises(ValueError, match=r"a downlink has|at least 1 minute"):
        read(payload)
