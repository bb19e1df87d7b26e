"""Shared access signatures of Azure."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from urllib.parse import parse_qs, unquote

import pytest
from pydantic import ValidationError

from pipeline.rulebook.connections.mqtt_broker import MqttSourceConfig
from pipeline.rulebook.connections.sas import SasConfig, credentials, token

KEY = b64encode(b"k" * 32).decode()
HUB = "my-hub.azure-devices.net"


def checked(text: str, key: str = KEY) -> dict[str, str]:
    """Return a token's parts, as the hub checks them. AssertionError: it is not signed by `key`."""
    kind, _, parts = text.partition(" ")
    assert kind == "SharedAccessSignature"
    found = {name: values[0] for name, values in parse_qs(parts).items()}
    said = dict(part.split("=", 1) for part in parts.split("&"))
    signed = f"{said['sr']}\n{said['se']}".encode()
    expected = hmac.new(b64decode(key), signed, hashlib.sha256).digest()
    assert b64decode(unquote(said["sig"])) == expected
    return found


def test_a_token_is_signed_for_its_resource() -> None:
    """Whose it is and until when is what is signed."""
    sas = SasConfig(key=KEY)
    found = checked(token(sas, f"{HUB}/devices/d 1", 1_790_000_000))
    assert (found["sr"], found["se"]) == (f"{HUB}/devices/d 1", "1790000000")
    assert "skn" not in found
    policy = checked(token(SasConfig(key=KEY, policy="device"), HUB, 1))
    assert policy["skn"] == "device"
    with pytest.raises(AssertionError):
        checked(token(sas, HUB, 1), b64encode(b"x" * 32).decode())


def test_user_and_password_of_devices_and_modules() -> None:
    """Both are made of who connects, and hold for the lifetime."""
    sas = SasConfig.model_validate({"key": KEY, "lifetime": "10m"})
    user, password = credentials(sas, HUB, "gate", 1_000.4)
    assert user == f"{HUB}/gate/?api-version=2021-04-12"
    found = checked(password)
    assert (found["sr"], found["se"]) == (f"{HUB}/devices/gate", "1600")
    user, password = credentials(sas, HUB, "edge/funicular", 0)
    assert user.startswith(f"{HUB}/edge/funicular/?")
    assert checked(password)["sr"] == f"{HUB}/devices/edge/modules/funicular"
    assert sas.renewed_after_s == 480


def test_what_is_no_key_is_said() -> None:
    """A key that is not base64 is found when the rules are read; it is never shown."""
    with pytest.raises(ValidationError, match="a key in base64") as caught:
        SasConfig.model_validate({"key": "not base64!"})
    assert "not base64!" not in str(caught.value)
    assert KEY not in repr(SasConfig(key=KEY))


def test_sas_makes_the_user() -> None:
    """Beside a user, or without a name of ours, it is a mistake."""
    given = {"server": f"mqtts://{HUB}", "sas": {"key": KEY}}
    assert MqttSourceConfig.model_validate({**given, "client_id": "gate"}).sas is not None
    for more in ({}, {"client_id": "gate", "user": "me"}):
        with pytest.raises(ValidationError, match="makes the user"):
            MqttSourceConfig.model_validate({**given, **more})
