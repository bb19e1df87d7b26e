"""Naming devices by a template, and what a device may be called."""

from __future__ import annotations

import pytest

from pipeline.errors import MessageError
from pipeline.integrations.dialect import (
    DEVICE_NAME_LENGTH_MAX,
    DeviceTemplate,
    dialects,
    path_segment,
)


def test_fills_the_variables() -> None:
    """Each variable is replaced wherever it stands; the rest stays."""
    name = DeviceTemplate.fill("{a}:{b}/{a}", {"a": "app1", "b": "dev1"})

    assert name == "app1:dev1/app1"


def test_values_are_not_placeholders() -> None:
    """A device cannot borrow another variable by calling itself like one."""
    name = DeviceTemplate.fill("{application_id}:{device_id}",
                               {"application_id": "{device_id}", "device_id": "x"})  # fmt: skip

    assert name == "{device_id}:x"


def test_only_variables_that_are_used_must_be_there() -> None:
    """An empty variable is missed only where the template names it."""
    assert DeviceTemplate.fill("{device_id}", {"device_id": "x", "dev_eui": ""}) == "x"
    with pytest.raises(MessageError, match="no dev_eui") as caught:
        DeviceTemplate.fill("{dev_eui}", {"device_id": "x", "dev_eui": ""})
    assert caught.value.code == "device_missing"
    assert caught.value.detail == {"field": "dev_eui"}


@pytest.mark.parametrize(
    ("name", "code"),
    [("x" * 256, "device_name"), ("a\nb", "device_name"), ("a\0", "device_name"),
     ("a\u200bb", "device_name")],
)  # fmt: skip
def test_names_that_no_device_can_have(name: str, code: str) -> None:
    """Names that are too long, or have control or invisible characters, are refused."""
    with pytest.raises(MessageError) as caught:
        DeviceTemplate.fill("{device_id}", {"device_id": name})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../x", "..%2Fx"),
        ("a.b", "a.b"),
        ("ü ?#", "%C3%BC%20%3F%23"),
    ],
)
def test_a_name_is_one_segment_of_a_path(name: str, segment: str) -> None:
    """No device's name leads to another address: neither by a slash nor by dots."""
    assert path_segment(name) == segment


def test_longest_name_passes() -> None:
    """The limit itself is allowed, and so are letters of every script, spaces and slashes."""
    long = "é" * DEVICE_NAME_LENGTH_MAX
    assert DeviceTemplate.fill("{device_id}", {"device_id": long}) == long
    assert DeviceTemplate.fill("{device_id}", {"device_id": "Halle 3/Süd"}) == "Halle 3/Süd"


def test_variables_of_a_template() -> None:
    """The rulebook can see which variables a template uses, and so find a wrong one."""
    assert DeviceTemplate.variables("{a}:{b}-{a}") == ("a", "b", "a")
    assert DeviceTemplate.variables("plain") == ()


def test_defaults_use_known_variables() -> None:
    """Every dialect's default template uses only its own variables."""
    for dialect in dialects().values():
        used = set(DeviceTemplate.variables(dialect.device_template))
        assert used
        assert used <= set(dialect.device_variables)
