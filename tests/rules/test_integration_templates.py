"""The templates of integrations that come along: what each stands for, with a user's values
alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.errors import ConfigError
from pipeline.rehearse.from_template import templates_of
from pipeline.rulebook.book import Integration, Rulebook
from pipeline.wiring import catalogue, load_rules

SHIPPED = sorted(
    name
    for name, template in templates_of(Path("none"), catalogue().templates).items()
    if template.kind == "integration"
)
KEY = "s3cret, with `signs` and ${x}"
SHARED_KEY = "c2VjcmV0IGtleQ=="  # Azure's are base64
SECRETS = {"KEY": KEY, "SHARED_KEY": SHARED_KEY}


@dataclass(frozen=True)
class Expected:
    """What a template makes of variables: dialect, transport, and of the rest what matters."""

    variables: dict[str, str]
    dialect: str
    transport: str
    connection: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


EXPECTED = {
    "aws-iot": Expected(
        {"endpoint": "a1-ats.iot.eu-central-1.amazonaws.com", "certificate_file": "/a/own.pem",
         "key_file": "/a/own.key"},
        "aws_iot", "mqtt",
        {"server": "mqtts://a1-ats.iot.eu-central-1.amazonaws.com:8883",
         "tls.certificate_file": "/a/own.pem", "tls.key_file": "/a/own.key"},
        {"topic": "dt/{application}/{device_id}/{kind}", "shadows": True},
    ),
    "azure-iot-hub": Expected(
        {"endpoint": "ihsu1.servicebus.windows.net", "name": "iothub-ehub-1", "key": SHARED_KEY,
         "hub": "my-hub"},
        "http", "amqp1",
        {"server": "amqps://ihsu1.servicebus.windows.net", "user": "service",
         "password": SHARED_KEY, "address": "iothub-ehub-1", "event_hub.consumer_group": "$Default",
         "downlinks.server": "amqps://my-hub.azure-devices.net",
         "downlinks.sas.key": SHARED_KEY, "downlinks.sas.policy": "service",
         "downlinks.to": "/devices/{device_id}/messages/devicebound"},
        {"device_header": "iothub-connection-device-id"},
    ),
    "azure-iot-hub-device": Expected(
        {"hub": "my-hub", "device": "gateway-1", "key": SHARED_KEY},
        "azure_iot_hub", "mqtt",
        {"server": "mqtts://my-hub.azure-devices.net:8883", "client_id": "gateway-1",
         "sas.key": SHARED_KEY, "downlink_client_id": ""},
        {"role": "device", "device_id": "gateway-1"},
    ),
    "chirpstack-mqtt": Expected(
        {"server": "mqtt://chirpstack.example.com:1883"},
        "chirpstack", "mqtt",
        {"server": "mqtt://chirpstack.example.com:1883", "user": "", "password": None},
    ),
    "the-things-network-v2": Expected(
        {"handler": "eu.thethings.network", "application": "app1", "access_key": KEY},
        "ttn_v2", "mqtt",
        {"server": "mqtts://eu.thethings.network:8883", "user": "app1", "password": KEY},
        {"application_id": "app1"},
    ),
    "the-things-stack-mqtt": Expected(
        {"application": "app1", "api_key": KEY},
        "tts_v3", "mqtt",
        {"server": "mqtts://eu1.cloud.thethings.network:8883", "user": "app1@ttn",
         "password": KEY, "qos": 0},
        {"application_id": "app1", "tenant_id": "ttn"},
    ),
    "the-things-stack-storage": Expected(
        {"application": "app1", "api_key": KEY},
        "tts_v3", "poll",
        {"storage": "https://eu1.cloud.thethings.network", "key": KEY},
        {"application_id": "app1", "server": "https://eu1.cloud.thethings.network",
         "api_key": KEY},
    ),
    "watson-iot": Expected(
        {"organization": "abc123", "api_key": "a-abc123-x", "token": KEY},
        "watson_iot", "mqtt",
        {"server": "mqtts://abc123.messaging.internetofthings.ibmcloud.com:8883",
         "client_id": "a:abc123:funicular", "user": "a-abc123-x", "password": KEY},
    ),
}  # fmt: skip


def book_of(folder: Path, text: str) -> Rulebook:
    (folder / "integrations").mkdir()
    (folder / "integrations/in.yaml").write_text(text)
    (book,) = load_rules([folder], None, SECRETS).values()
    return book


def integration_of(folder: Path, name: str, variables: dict[str, str], more: str = "") -> Any:
    named = {value: f"${{env:{name}}}" for name, value in SECRETS.items()}
    given = {each: named.get(value, value) for each, value in variables.items()}
    lines = [f"  {each}: '{value}'" for each, value in given.items()]
    book = book_of(folder, "\n".join([f"template: {name}", "variables:", *lines, more]))
    assert book.warnings == ()
    made: Integration = book.integrations["in"]
    return made


def shown(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def inside(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return shown(value)


def test_each_template_is_tried() -> None:
    """Every template of an integration that comes along has its case here."""
    assert sorted(EXPECTED) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_template_is_a_whole_integration(name: str, tmp_path: Path) -> None:
    """With a user's values alone, dialect, transport, connection and options are those that the
    platform asks for; secrets stay secret.
    """
    expected = EXPECTED[name]
    made = integration_of(tmp_path, name, expected.variables)
    assert (made.dialect.name, made.transport) == (expected.dialect, expected.transport)
    for path, value in expected.connection.items():
        assert inside(made.connection, path) == value, path
    for path, value in expected.options.items():
        assert inside(made.options, path) == value, path
    assert not any(secret in repr(made) for secret in SECRETS.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_template_lacks_is_said(name: str, tmp_path: Path) -> None:
    """Without values, each variable that must be given is named, in the user's own file."""
    with pytest.raises(ConfigError) as caught:
        book_of(tmp_path, f"template: {name}\n")
    assert {fault.file for fault in caught.value.faults} == {"integrations/in.yaml"}
    assert all("is missing: " in fault.message for fault in caught.value.faults)


def test_what_the_user_writes_counts_more(tmp_path: Path) -> None:
    """Entries of connection and options are put together with the template's; other fields of an
    integration stand beside them.
    """
    made = integration_of(
        tmp_path,
        "watson-iot",
        EXPECTED["watson-iot"].variables,
        "connection: {silence_max: 1h, client_id: 'A:abc123:shared'}\n"
        "options: {command: set}\ndevice_type: pump\nmetadata: {site: north}\n",
    )
    assert made.connection.client_id == "A:abc123:shared"
    assert made.connection.user == "a-abc123-x"
    assert made.connection.silence_max == 3_600
    assert (made.options.command, made.device_type) == ("set", "pump")
    assert made.metadata == {"site": "north"}


def test_faults_say_where_they_are(tmp_path: Path) -> None:
    """A name that is none, a template of sinks, a variable that is none, a value that does not fit
    and a field of the user's that does not: each in its place, with what to do.
    """
    folder = tmp_path / "integrations"
    folder.mkdir()
    files = {
        "a": "template: aws-iott\n",
        "b": "template: slack\nvariables: {url: 'https://a.example'}\n",
        "c": "template: chirpstack-mqtt\nvariables: {serve: 'mqtt://a.example'}\n",
        "d": "template: chirpstack-mqtt\nvariables: {server: 'a.example'}\n",
        "e": "template: chirpstack-mqtt\nvariables: {server: 'mqtt://a.example'}\n"
             "connection: {qos: 3}\n",
        "f": "template: chirpstack-mqtt\nvariables: {server: 'ftp://a.example'}\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks/g.yaml").write_text("template: aws-iot\nvariables: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_rules([tmp_path], None, {})
    said = [str(fault) for fault in caught.value.faults]
    expected = [
        "integrations/a.yaml:1:11: there is no template `aws-iott` (did you mean `aws-iot`?)",
        "integrations/b.yaml:1:11: the template `slack` is of sinks, and this is none",
        "integrations/c.yaml:2:13: there is no variable `serve` (did you mean `server`?)",
        "integrations/d.yaml:2:13: must be a web address, as mqtts://broker.example.com:8883",
        "integrations/e.yaml:3:19: must be 0 or 1",
        "integrations/f.yaml:1:1: with these variables it does not fit: `connection.server`",
        "sinks/g.yaml:1:11: the template `aws-iot` is of integrations, and this is none",
    ]
    for wanted in expected:
        assert any(each.startswith(wanted) for each in said), (wanted, said)


def test_a_secret_in_the_file_is_warned_of(tmp_path: Path) -> None:
    """A secret that is no reference runs, and is warned of in the user's file."""
    book = book_of(
        tmp_path,
        "template: the-things-stack-mqtt\nvariables:\n  application: app1\n  api_key: k1\n",
    )
    (warning,) = book.warnings
    assert (warning.file, warning.line) == ("integrations/in.yaml", 4)
    assert "stands here for all to read" in warning.message


def test_a_folders_own_template(tmp_path: Path) -> None:
    """A folder may have templates of integrations; a value is never read as an expression, and a
    field that none was given for is left out.
    """
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/readings.yaml").write_text(
        "name: Ours\ndescription: Ours.\n"
        "variables:\n  site: {description: The site}\n  key: {description: k, optional: true}\n"
        "integration:\n  dialect: http\n  transport: poll\n"
        "  connection:\n    url: https://api.example.com/{{site}}/readings\n"
        "    query: {site: '{{site}}', after: '${cursor}'}\n"
        "    bearer: '{{key}}'\n"
    )
    config = integration_of(tmp_path, "readings", {"site": "a/b ${cursor}"}).connection
    assert config.url == "https://api.example.com/a%2Fb%20%24%7Bcursor%7D/readings"
    assert config.query == {"site": "a/b $${cursor}", "after": "${cursor}"}
    assert config.bearer is None
