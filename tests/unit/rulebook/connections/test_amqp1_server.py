"""`connection:` of an integration over AMQP 1.0: what can be, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.rulebook.book import Integration
from pipeline.wiring import load_rules


def load(folder: Path, connection: str, dialect: str = "http") -> Integration:
    (folder / "integrations").mkdir()
    (folder / "funicular.yaml").write_text("tenant: acme\n")
    text = f"dialect: {dialect}\ntransport: amqp1\nconnection: {connection}\n"
    (folder / "integrations/barn.yaml").write_text(text)
    (book,) = load_rules([folder], None, {"KEY": "hush-hush"}).values()
    return book.integrations["barn"]


def test_an_event_hub(tmp_path: Path) -> None:
    """Partitions may be written as numbers; one worker reads the hub; the key is not shown."""
    config: Any = load(
        tmp_path,
        "{server: 'amqps://ns.servicebus.windows.net', user: policy, password: '${env:KEY}',"
        " address: hub, event_hub: {partitions: [0, 1], start: earliest}}",
    ).connection

    assert (config.host, config.port, config.secure) == ("ns.servicebus.windows.net", 5671, True)
    assert (config.event_hub.partitions, config.event_hub.consumer_group) == (
        ("0", "1"),
        "$Default",
    )
    assert config.one_owner
    assert "hush-hush" not in repr(config)
    assert config.way_down() is None


def test_a_token_is_made_of_a_key(tmp_path: Path) -> None:
    """IoT Hub's own server is told policy and hub, and a token that ends an hour from now."""
    config: Any = load(
        tmp_path,
        "{server: 'amqps://ns.servicebus.windows.net', address: hub, event_hub: {}, downlinks: {"
        "server: 'amqps://my-hub.azure-devices.net', sas: {policy: service, key: a2V5},"
        " address: d}}",
    ).connection
    user, password = config.way_down().login(1_000.0)

    assert user == "service@sas.root.my-hub"
    assert password.startswith("SharedAccessSignature sr=my-hub.azure-devices.net&sig=")
    assert password.endswith("&se=4600&skn=service")
    assert config.login(0.0) == ("", "")


@pytest.mark.parametrize(
    ("connection", "dialect", "says"),
    [
        ("{server: 'amqp://a'}", "http", "`address` is missing"),
        ("{server: 'amqp://a/b', address: q}", "http", "without a path"),
        ("{server: 'http://a', address: q}", "http", "must be an address"),
        ("{server: 'amqp://a', address: q, tls: {}}", "http", "needs a server as amqps"),
        ("{server: 'amqp://a', address: q, user: u}", "http", "go together"),
        ("{server: 'amqp://a', address: q, event_hub: {}, share: true}", "http", "no `share`"),
        ("{server: 'amqp://a', address: q, event_hub: {}, lock_renewal: 20s}", "http", "no locks"),
        ("{server: 'amqp://a', address: q, downlinks: {address: '{x}'}}", "http", "not known here"),
        ("{server: 'amqp://a', address: q, downlinks: {address: d}}", "loriot", "posts its"),
        (
            "{server: 'amqp://a', address: q, downlinks: {address: d, user: u, password: p}}",
            "http",
            "of another `server`",
        ),
        ("{server: 'amqp://a', address: q, sas: {key: a2V5}}", "http", "the `policy`"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, connection: str, dialect: str, says: str) -> None:
    """A fault of the connection is told in words."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, connection, dialect)
    assert says in "\n".join(fault.message for fault in caught.value.faults)
