"""`transport:` and `connection:` of an integration: what can be; what is said of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.errors import ConfigError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.schema import json_schema
from pipeline.wiring import catalogue, load_rules

OVER = "dialect: chirpstack\ntransport: mqtt\n"
BROKER = "connection: {server: 'mqtt://broker.example'}"


def write(folder: Path, text: str) -> Path:
    (folder / "integrations").mkdir()
    (folder / "funicular.yaml").write_text("tenant: acme\n")
    (folder / "integrations/barn.yaml").write_text(text)
    return folder


def load(folder: Path, text: str, env: Mapping[str, str] | None = None) -> Integration:
    (book,) = load_rules([write(folder, text)], None, env or {}).values()
    return book.integrations["barn"]


def faults(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return "\n".join(f"{fault.line}: {fault.message} ({fault.suggestion})"
                     for fault in caught.value.faults)  # fmt: skip


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    """A server is enough: the rest has defaults that lose nothing."""
    made = load(tmp_path, f"dialect: chirpstack\ntransport: mqtt\n{BROKER}\n")

    assert made.transport == "mqtt"
    config: Any = made.connection
    assert (config.host, config.port, config.secure) == ("broker.example", 1883, False)
    assert (config.qos, config.persistent, config.retained, config.share) == (1, True, False, "")
    assert config.version == "3.1.1"


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    """A password is filled in, and stands in no repr."""
    text = (
        "dialect: tts_v3\ntransport: mqtt\nconnection:\n  server: mqtts://eu1.example\n"
        "  user: app@ttn\n  password: ${env:SECRET}\n  qos: 0\n  topics: v3/#\n"
    )
    config: Any = load(tmp_path, text, {"SECRET": "hush-hush"}).connection

    assert config.password.get_secret_value() == "hush-hush"
    assert "hush-hush" not in repr(config)
    assert (config.port, config.secure, config.topics) == (8883, True, ("v3/#",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"dialect: chirpstack\nauthentication: open\n{BROKER}", "of a transport other than HTTP"),
        (f"dialect: chirpstack\ntransport: mqttt\n{BROKER}", "did you mean `mqtt`"),
        ("dialect: chirpstack\ntransport: mqtt", "`server` is missing"),
        (
            f"dialect: chirpstack\ntransport: mqtt\nauthentication: open\n{BROKER}",
            "user and password stand under `connection`",
        ),
        (f"dialect: sigfox\ntransport: mqtt\n{BROKER}", "sigfox does not come over MQTT"),
        (f"dialect: chirpstack\ntransport: mqtt\nsynchronous: true\n{BROKER}", "is not answered"),
        (f"dialect: mqtt\ntransport: mqtt\n{BROKER}", "names no topic to subscribe to"),
        (
            "dialect: chirpstack\ntransport: mqtt\nconnection: {server: broker}",
            "must be an address",
        ),
        (
            f"{OVER}connection: {{server: 'mqtt://u:p@broker.example'}}",
            "stand for themselves",
        ),
        (
            f"{OVER}connection: {{server: 'mqtt://b.example', tls: {{ca_file: x}}}}",
            "needs a server as mqtts://",
        ),
        (
            f"{OVER}connection: {{server: 'mqtt://b.example', topics: ['a/#/b']}}",
            "# for the last alone",
        ),
        (
            f"{OVER}connection: {{server: 'mqtt://b.example', qoss: 1}}",
            "did you mean `qos`",
        ),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, text: str, says: str) -> None:
    """Each fault is found when the rules are read, and says what to do."""
    assert says in faults(tmp_path, text)


def test_sharing_is_allowed_and_warned_of(tmp_path: Path) -> None:
    """Workers may share a subscription; that order is lost by it is a warning, no fault."""
    text = "connection: {server: 'mqtt://b.example', share: funicular}"
    folder = write(tmp_path, f"dialect: chirpstack\ntransport: mqtt\n{text}\n")
    (book,) = load_rules([folder], None, {}).values()

    (warning,) = book.warnings
    assert "order" in warning.message
    assert warning.line == 3


@pytest.mark.parametrize(
    ("document", "good"),
    [
        ({"dialect": "chirpstack", "authentication": "open"}, True),
        ({"dialect": "chirpstack"}, False),
        (
            {"dialect": "chirpstack", "transport": "mqtt",
             "connection": {"server": "mqtt://b.example", "qos": 1}},
            True,
        ),
        ({"dialect": "chirpstack", "transport": "mqtt"}, False),
        (
            {"dialect": "chirpstack", "transport": "mqtt", "authentication": "open",
             "connection": {"server": "mqtt://b.example"}},
            False,
        ),
        (
            {"dialect": "chirpstack", "transport": "mqtt",
             "connection": {"server": "mqtt://b.example", "qoss": 1}},
            False,
        ),
        ({"dialect": "chirpstack", "transport": "pigeon", "connection": {}}, False),
    ],
)  # fmt: skip
def test_editors_say_the_same(document: dict[str, Any], good: bool) -> None:
    """The JSON Schema takes what `check` takes: a connection in place of an authentication."""
    schema = json_schema(catalogue())["integration"]

    assert Draft202012Validator(schema).is_valid(document) is good
