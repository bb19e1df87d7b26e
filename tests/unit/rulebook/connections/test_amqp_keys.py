"""Routing keys and addresses: what comes in is read by words, what goes out leads nowhere else."""

from __future__ import annotations

import pytest

from pipeline.errors import MessageError
from pipeline.model.downlink import Downlink, State
from pipeline.model.uplink import Link
from pipeline.rulebook.connections.amqp_keys import (
    binding_of_filter,
    binding_of_template,
    check_downlink_template,
    check_template,
    downlink_address,
    downlink_key,
    key_of,
    named_words,
    topic_of,
)


def downlink(device: str = "d1") -> Downlink:
    return Downlink(
        id="l1", tenant="acme", device=device, integration="i", state=State.SENDING,
        requested_ms=1, changed_ms=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "key", "named"),
    [
        ("plant.{device_id}.up", "plant.d1.up", {"device_id": "d1"}),
        ("{line}.{device_id}", "north.d-1/a", {"line": "north", "device_id": "d-1/a"}),
        ("{device_id}.#", "d1", {"device_id": "d1"}),
        ("{device_id}.#", "d1.a.b", {"device_id": "d1"}),
        ("a+b.{device_id}", "a+b.", {"device_id": ""}),
        ("plant.{device_id}.up", "plant.d1.x.up", {}),
        ("plant.{device_id}.up", "plantXd1.up", {}),
        ("plant.{device_id}.up", "", {}),
    ],
)
def test_a_template_names_words(template: str, key: str, named: dict[str, str]) -> None:
    """A name is one word, `#` any number, all else stands for itself."""
    assert named_words(check_template(template), key) == named


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("plant.x{device_id}", "must be a name in braces"),
        ("plant.*", "must be a name in braces"),
        ("#.up", "`#` stands last"),
        ("{a}.{a}", "has a name twice"),
        ("{exchange}.{a}", "a name that each message has"),
    ],
)
def test_what_is_no_template_is_said(template: str, says: str) -> None:
    """A template that cannot be read is refused with what is wrong."""
    with pytest.raises(ValueError, match=says):
        check_template(template)


def test_bindings_take_what_is_read() -> None:
    """Templates and MQTT's filters become binding keys."""
    assert binding_of_template("plant.{line}.{device_id}.#") == "plant.*.*.#"
    assert binding_of_filter("+/devices/+/events/#") == "*.devices.*.events.#"


def test_topics_and_keys_are_each_others() -> None:
    """A key's words are a topic's levels; what would be another number of levels is no topic."""
    assert topic_of("app.devices.d1.up") == "app/devices/d1/up"
    assert topic_of("app.devices.d1/up") is None
    assert key_of("app/devices/d1/down") == "app.devices.d1.down"


@pytest.mark.parametrize("device", ["a.b", "*", "a#", "", "\0", "x" * 300])
def test_no_device_leads_to_another_key(device: str) -> None:
    """A name that is no word refuses the downlink."""
    with pytest.raises(MessageError) as found:
        downlink_key("plant.{device_id}.down", downlink(device or "d"), Link(device_id=device)
                     if device else Link(device_id="."))  # fmt: skip
    assert found.value.code == "no_link"
    if device:
        with pytest.raises(MessageError):
            key_of(f"app/devices/{device}/down")


@pytest.mark.parametrize("device", ["a/b", "..", ".", "a?b", "a\nb", "*"])
def test_no_device_leads_to_another_address(device: str) -> None:
    """A name that is no segment refuses the downlink."""
    with pytest.raises(MessageError) as found:
        downlink_address("/devices/{device_id}/messages", downlink(device), Link())
    assert found.value.code == "no_link"


def test_names_of_the_link_fill_in() -> None:
    """The link's names stand for themselves; one that it lacks refuses the downlink."""
    link = Link(device_id="d.1", dev_eui="0A0B", application_id="app")
    assert downlink_address("q/{application_id}/{device_id}", downlink(), link) == "q/app/d.1"
    assert downlink_key("{dev_eui}.{device}", downlink(), link) == "0A0B.d1"
    with pytest.raises(MessageError):
        downlink_key("{dev_eui}.down", downlink(), Link())
    with pytest.raises(ValueError, match="is not known here"):
        check_downlink_template("{devive_id}")
    with pytest.raises(ValueError, match="no other half"):
        check_downlink_template("{device_id")
