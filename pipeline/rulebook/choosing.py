"""Which converter has a device: what is known of the device → a converter's name.

The first of these that fits:

1. the integration's `converters`, from top to bottom: patterns that the user wrote;
2. brand and model, as The Things Stack says them (`version_ids`): the converter of that very name
   (`<brand>/<model>`), the codec that a description in the layout of lorawan-devices names for the
   model (by firmware and band, where they are known), a converter whose `devices` fit;
3. the device's profile (ChirpStack): a converter whose `devices` fit;
4. the integration's `converter`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.part import Part
from pipeline.rulebook.book import Chosen, Described, Integration, Pattern, Rulebook
from pipeline.rulebook.catalogue import Known, Problem, suggest

CHOICES_MAX = 500
"""Patterns of one integration, or of one converter: each uplink is held against them."""
_Glob = Annotated[str, Field(min_length=1, max_length=200)]


class DevicesConfig(Part):
    """Which devices: `*` is any text, `?` one character, `[ab]` one of these; upper and lower case
    are the same, but in `device`. All that is given must fit.
    """

    device: Annotated[_Glob | None, Field(description="the device's name")] = None
    dev_eui: _Glob | None = None
    brand: Annotated[_Glob | None, Field(description="The Things Stack's brand_id")] = None
    model: Annotated[_Glob | None, Field(description="The Things Stack's model_id")] = None
    profile: Annotated[_Glob | None, Field(description="the device profile's name or id")] = None

    @model_validator(mode="after")
    def _has_any(self) -> DevicesConfig:
        if not self.pattern().parts:
            raise ValueError("needs one of `device`, `dev_eui`, `brand`, `model` and `profile`")
        return self

    def pattern(self) -> Pattern:
        """Return it, compiled."""
        parts = []
        for name in ("device", "dev_eui", "brand", "model", "profile"):
            glob = getattr(self, name)
            if glob is not None:
                flags = re.NOFLAG if name == "device" else re.IGNORECASE
                parts.append((name, re.compile(translate(glob), flags)))
        return Pattern(tuple(parts))


class ChoiceConfig(DevicesConfig):
    """Devices of an integration, and the converter that has them."""

    converter: str


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of a device; empty where it is not."""

    device: str = ""
    dev_eui: str = ""
    brand: str = ""
    model: str = ""
    profile: str = ""
    profile_id: str = ""
    firmware: str = ""
    band: str = ""


def device_of(name: str | None, dev_eui: str, metadata: Mapping[str, Any]) -> Device:
    """Return what a message says of its device, in the names that the dialects have for it."""

    def text(*keys: str) -> str:
        for key in keys:
            value = metadata.get(key)
            if isinstance(value, str) and value:
                return value
        return ""

    return Device(
        device=name or "",
        dev_eui=dev_eui,
        brand=text("brand_id"),
        model=text("model_id"),
        profile=text("device_profile_name", "device_profile_id"),
        profile_id=text("device_profile_id"),
        firmware=text("firmware_version"),
        band=text("band_id"),
    )


_KIND = frozenset({"brand_id", "model_id", "device_profile_name", "device_profile_id"})


def choose_of(
    book: Rulebook,
    integration: Integration,
    name: str | None,
    dev_eui: str,
    metadata: dict[str, Any],
) -> str | None:
    """Return what `choose` returns for what a message says; quickly where nothing chooses."""
    if not integration.converters and _KIND.isdisjoint(metadata):
        return integration.converter
    return choose(book, integration, device_of(name, dev_eui, metadata))


def choose(book: Rulebook, integration: Integration, device: Device) -> str | None:
    """Return the name of the device's converter; None: it has none."""
    for choice in integration.converters:
        if fits(choice.pattern, device):
            return choice.converter
    if device.brand or device.model or device.profile:
        found = _of_its_model(book, device) or _of_its_kind(book, device)
        if found is not None:
            return found
    return integration.converter


def _of_its_model(book: Rulebook, device: Device) -> str | None:
    """Return the converter that is called as the model, or that the model's description names."""
    name = f"{device.brand}/{device.model}".lower()
    if name in book.converters:
        return name
    described = book.described.get(name)
    return _described(described, device) if described else None


def _of_its_kind(book: Rulebook, device: Device) -> str | None:
    """Return the converter that is for such devices: by brand and model before by profile."""
    fitting = [choice for choice in book.devices if fits(choice.pattern, device)]
    for choice in fitting:
        if any(name in ("brand", "model") for name, _ in choice.pattern.parts):
            return choice.converter
    return fitting[0].converter if fitting else None


def fits(pattern: Pattern, device: Device) -> bool:
    """Return whether a device is among those that a pattern says."""
    for name, glob in pattern.parts:
        if glob.match(getattr(device, name)) is not None:
            continue
        if name != "profile" or glob.match(device.profile_id) is None:
            return False
    return True


def _described(described: tuple[Described, ...], device: Device) -> str:
    """Return the codec of a model: by firmware and band, else by one of them, else its first."""
    band = plain(device.band)

    def likeness(each: Described) -> int:
        return 2 * (each.firmware == device.firmware) + (plain(each.band) == band)

    return max(described, key=likeness).converter


def plain(band: str) -> str:
    """Return a band's name as both systems would write it: `EU863-870` is `EU_863_870`."""
    return re.sub(r"[^A-Z0-9]", "", band.upper())


def choices_of(
    configs: list[ChoiceConfig], known: Known, path: tuple[str | int, ...]
) -> tuple[tuple[Chosen, ...], list[Problem]]:
    """Return an integration's choices, and those whose converter is not there."""
    problems = []
    for index, config in enumerate(configs):
        if config.converter not in known.converters:
            listed = f"there are {', '.join(sorted(known.converters)) or 'none'}"
            hint = suggest(config.converter, known.converters) or listed
            message = f"there is no converter `{config.converter}`"
            problems.append(Problem((*path, index, "converter"), message, hint, 0))
    return tuple(Chosen(config.pattern(), config.converter) for config in configs), problems


def described_by(document: Any, vendor: str, known: Known) -> tuple[list[Described], list[Problem]]:
    """Return the codecs that a device's description in the layout of lorawan-devices names:

    firmwareVersions: [{version: "1.0", profiles: {EU863-870: {codec: x-codec}}}]
    """
    found: list[Described] = []
    problems: list[Problem] = []
    versions = document.get("firmwareVersions") if isinstance(document, dict) else None
    for index, version in enumerate(versions if isinstance(versions, list) else ()):
        profiles = version.get("profiles") if isinstance(version, dict) else None
        for band, profile in profiles.items() if isinstance(profiles, dict) else ():
            codec = profile.get("codec") if isinstance(profile, dict) else None
            if not isinstance(codec, str):
                continue
            name = f"{vendor}/{codec}"
            if name in known.converters:
                found.append(Described(name, str(version.get("version", "")), str(band)))
                continue
            path = ("firmwareVersions", index, "profiles", band, "codec")
            hint = suggest(name, known.converters)
            problems.append(Problem(path, f"there is no converter `{name}`", hint, 0))
    return found, problems
