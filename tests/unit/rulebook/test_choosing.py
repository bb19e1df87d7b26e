"""Which converter has a device: the order, the patterns, the library's descriptions, the faults."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.choosing import Device, choose, device_of

DECODE = "function decodeUplink(input) {}\n"
PLAIN = "uplinkDecoder: {fileName: a.js}\n"
ELSYS = "devices: [{brand: elsys, model: 'ers*'}, {profile: ELSYS *}]\n" + PLAIN
INTEGRATION = """\
dialect: tts_v3
authentication: open
converter: acme/rest
converters:
  - {dev_eui: 'a81758*', device: 'app:*', converter: acme/eui}
  - {device: 'app:meter-[0-9]', converter: acme/meter}
"""
# As TheThingsNetwork/lorawan-devices has a device.
DESCRIPTION = """\
name: Thing
firmwareVersions:
  - {version: '1.0', profiles: {EU863-870: {id: p, codec: old}, US902-928: {id: p, codec: us}}}
  - {version: '2.0', profiles: {EU863-870: {id: p, codec: new}}}
"""


@pytest.fixture
def book(rules: Any) -> Rulebook:
    for name in ("rest", "eui", "meter", "thing-1"):
        rules.write(f"converters/acme/{name}.yaml", PLAIN)
    rules.write("converters/acme/a.js", DECODE)
    rules.write("converters/elsys/a.js", DECODE)
    rules.write("converters/elsys/all.yaml", ELSYS)
    for name in ("old", "us", "new"):
        rules.write(f"converters/lib/{name}.yaml", "uplinkDecoder: {fileName: payload/a.js}\n")
    rules.write("converters/lib/payload/a.js", DECODE)
    rules.write("converters/lib/Thing2.yaml", DESCRIPTION)
    rules.write("converters/lib/index.yaml", "endDevices: [Thing2]\n")
    rules.write("converters/lib/p.yaml", "macVersion: '1.0.3'\n")
    rules.write("converters/lib/Thing2.jpg", b"\xff\xd8")
    rules.write("integrations/ns.yaml", INTEGRATION)
    rules.write("integrations/bare.yaml", "dialect: tts_v3\nauthentication: open\n")
    return rules.load()


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device(), "acme/rest"),
        (Device(device="app:x", dev_eui="A81758FFFE01"), "acme/eui"),
        (Device(device="other:x", dev_eui="A81758FFFE01"), "acme/rest"),
        (Device(device="app:meter-7", brand="elsys", model="ers"), "acme/meter"),
        (Device(device="app:Meter-7"), "acme/rest"),
        (Device(brand="acme", model="thing-1"), "acme/thing-1"),
        (Device(brand="ACME", model="Thing-1", profile="ELSYS 5"), "acme/thing-1"),
        (Device(brand="acme", model="thing-2"), "acme/rest"),
        (Device(brand="Elsys", model="ERS-CO2"), "elsys/all"),
        (Device(brand="elsys", model="ems"), "acme/rest"),
        (Device(profile="Elsys ERS"), "elsys/all"),
        (Device(profile="mine", profile_id="ELSYS 1"), "elsys/all"),
        (Device(profile="mine"), "acme/rest"),
        (Device(brand="lib", model="thing2", firmware="1.0", band="US_902_928"), "lib/us"),
        (Device(brand="lib", model="thing2", firmware="1.0", band="EU_863_870"), "lib/old"),
        (Device(brand="lib", model="thing2", firmware="2.0", band="US_902_928"), "lib/new"),
        (Device(brand="lib", model="thing2", firmware="9", band="US_902_928"), "lib/us"),
        (Device(brand="lib", model="thing2"), "lib/old"),
    ],
)
def test_the_most_special_fits(book: Rulebook, device: Device, expected: str) -> None:
    """Patterns of the integration, then brand and model, then the profile, then the integration."""
    assert choose(book, book.integrations["ns"], device) == expected


def test_without_an_integrations_converter(book: Rulebook) -> None:
    """A device that nothing fits has none: what its network server decoded is taken."""
    bare = book.integrations["bare"]
    assert choose(book, bare, Device(device="x")) is None
    assert choose(book, bare, Device(brand="acme", model="thing-1")) == "acme/thing-1"


def test_what_dialects_say_of_a_device() -> None:
    """The Things Stack's version_ids and ChirpStack's profile are found in their metadata."""
    stack = {"brand_id": "b", "model_id": "m", "firmware_version": "1.0", "band_id": "EU_863_870"}
    assert device_of("d", "AB", stack) == Device(
        "d", "AB", brand="b", model="m", firmware="1.0", band="EU_863_870"
    )
    chirpstack = {"device_profile_name": "P", "device_profile_id": "7", "brand_id": 5}
    assert device_of(None, "", chirpstack) == Device(profile="P", profile_id="7")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "converters: [{device: 'a*', converter: acme/tw}]",
            "1:40: there is no converter `acme/tw` (did you mean `acme/two`?)",
        ),
        (
            "converters: [{converter: acme/two}]",
            "1:14: needs one of `device`, `dev_eui`, `brand`, `model` and `profile`",
        ),
        ("converters: [{dev_eui: '', converter: acme/two}]", "1:25: must not be empty"),
    ],
)
def test_faults_of_choices(rules: Any, line: str, expected: str) -> None:
    """A choice without a condition, or of a converter that is not there, is told with its place."""
    rules.write("converters/acme/two.yaml", PLAIN)
    rules.write("converters/acme/a.js", DECODE)
    assert rules.integration(line) == expected


def test_a_description_without_its_codec(rules: Any) -> None:
    """A device's description that names a codec which is not there is told."""
    rules.write("converters/lib/thing.yaml", DESCRIPTION)
    rules.write("converters/lib/old.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/lib/us.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/lib/a.js", DECODE)
    (fault,) = rules.faults()
    assert fault.startswith("converters/lib/thing.yaml:4:")
    assert "there is no converter `lib/new`" in fault
