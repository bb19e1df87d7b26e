"""Whose encoder a downlink meets, and what its bytes mean to those who look at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.downlink.encode import Encoded, encode
from pipeline.errors import ScriptError
from pipeline.integrations.dialect import dialects
from pipeline.model.downlink import DownlinkRequest
from pipeline.model.event import RequestedDownlink
from pipeline.model.uplink import Link
from pipeline.ports import Script, ScriptCall
from pipeline.rulebook.book import Chosen, Converter, Rulebook
from pipeline.rulebook.choosing import ChoiceConfig
from tests.made_integration import made_integration


class Scripts:
    """Answers with the script's path, or with what it was given."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[ScriptCall] = []

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        self.calls += calls
        made = {"bytes": [1], "fPort": 2, "warnings": []}
        return [made if self.answer is None else self.answer for _ in calls]

    def close(self) -> None:
        pass


def converter(name: str) -> Converter:
    def script(what: str) -> Script:
        return Script(f"{name}.{what}", "javascript", "")

    return Converter(name, name, "lorawan", script("up"), script("down"), script("back"))


@pytest.fixture
def book() -> Rulebook:
    choice = ChoiceConfig(device="meter-*", converter="acme/meter")
    integration = made_integration(
        tenant="t",
        name="ns",
        dialect=dialects()["tts_v3"],
        converter="acme/rest",
        queue_max=5,
        body_bytes_max=9,
        metadata={"site": "A"},
        converters=(Chosen(choice.pattern(), "acme/meter"),),
    )
    converters = {name: converter(name) for name in ("acme/rest", "acme/meter", "acme/model")}
    return Rulebook("t", Path("rules"), "v", {"ns": integration}, converters, {}, {})


def asked(device: str, link: Link | None = None, **request: Any) -> RequestedDownlink:
    given = DownlinkRequest(**(request or {"fields": {"a": 1}}))
    return RequestedDownlink("1", "t", device, "ns", 0, given, link=link)


@pytest.mark.parametrize(
    ("device", "link", "expected"),
    [
        ("x", None, "acme/rest"),
        ("meter-1", None, "acme/meter"),
        ("meter-1", Link(converter="acme/model"), "acme/model"),
        ("x", Link(converter="acme/gone"), "acme/rest"),
    ],
)
def test_the_devices_own_encoder(
    book: Rulebook, device: str, link: Link | None, expected: str
) -> None:
    """The converter that had the last uplink encodes; without one it is chosen as for an uplink."""
    scripts = Scripts()
    (result,) = encode([asked(device, link)], {"t": book}, scripts)
    assert isinstance(result, Encoded)
    assert scripts.calls[0].script.path == f"{expected}.down"
    assert scripts.calls[0].argument["variables"] == {"site": "A"}


def test_bytes_are_shown_as_they_read(book: Rulebook) -> None:
    """A downlink that was asked for by its bytes has what decodeDownlink reads in them."""
    scripts = Scripts({"data": {"target": 21}, "warnings": []})
    (result,) = encode([asked("x", payload=b"\x01", f_port=7)], {"t": book}, scripts)
    assert result == Encoded(b"\x01", 7, {"target": 21})
    assert scripts.calls[0].operation == "decode_downlink"
    assert scripts.calls[0].argument["fPort"] == 7


def test_bytes_that_cannot_be_read_go_all_the_same(book: Rulebook) -> None:
    """A decodeDownlink that fails changes nothing of the downlink but a warning."""
    scripts = Scripts(ScriptError("no good", code="script_threw"))
    (result,) = encode([asked("x", payload=b"\x01", f_port=7)], {"t": book}, scripts)
    assert result == Encoded(b"\x01", 7, None, ("decodeDownlink: no good",))
