"""`connection:` of an integration over AMQP 0-9-1: what can be, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.integrations.dialect import dialects
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp_broker import AmqpSourceConfig
from pipeline.wiring import load_rules


def load(folder: Path, dialect: str, connection: str, more: str = "") -> Integration:
    (folder / "integrations").mkdir()
    (folder / "funicular.yaml").write_text("tenant: acme\n")
    text = f"dialect: {dialect}\ntransport: amqp\nconnection: {connection}\n{more}"
    (folder / "integrations/barn.yaml").write_text(text)
    (book,) = load_rules([folder], None, {"PASSWORD": "hush-hush"}).values()
    return book.integrations["barn"]


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    """A server is enough: the queue is durable, ours alone, and bound to what the dialect reads."""
    made = load(tmp_path, "ttn_v2", "{server: 'amqp://rabbit.example'}")
    config: Any = made.connection

    assert (config.host, config.port, config.virtual_host) == ("rabbit.example", 5672, "/")
    assert (config.one_owner, config.declare, config.queue_arguments) == (True, True, {})
    assert config.queue_of("acme", "barn") == "funicular-acme-barn"
    assert config.bound(made.dialect, made.options) == [
        ("ttn.handler", "*.devices.*.up"),
        ("ttn.handler", "*.devices.*.events.#"),
    ]
    assert config.way_down(made.dialect).exchange == "ttn.handler"


def test_all_that_can_be_said(tmp_path: Path) -> None:
    """Secrets are filled in and not shown; the address's path is the virtual host."""
    made = load(
        tmp_path,
        "http",
        "{server: 'amqps://rabbit.example/my%2Fhost', user: me, password: '${env:PASSWORD}',"
        " queue: mine, queue_type: quorum, arguments: {x-max-length: 5}, share: true,"
        " routing_key: 'plant.{device_id}.#', bindings: [{exchange: a, keys: b}, {exchange: c}],"
        " downlinks: {routing_key: 'down.{device_id}'}}",
    )
    config: Any = made.connection

    assert (config.port, config.virtual_host, config.one_owner) == (5671, "my/host", False)
    assert "hush-hush" not in repr(config)
    assert config.password.get_secret_value() == "hush-hush"
    assert config.queue_arguments == {"x-queue-type": "quorum", "x-max-length": 5}
    assert config.bound(made.dialect, made.options) == [("a", "b"), ("c", "plant.*.#")]
    assert config.way_down(made.dialect).exchange == ""


@pytest.mark.parametrize(
    ("dialect", "connection", "says"),
    [
        ("http", "{server: rabbit}", "must be an address"),
        ("http", "{server: 'amqp://me:pw@rabbit'}", "stand for themselves"),
        ("http", "{server: 'amqp://rabbit', tls: {}}", "needs a server as amqps"),
        ("http", "{server: 'amqp://rabbit', user: me}", "go together"),
        ("http", "{server: 'amqp://rabbit', declare: false}", "name it under `queue`"),
        (
            "http",
            "{server: 'amqp://rabbit', declare: false, queue: q, queue_type: quorum}",
            "takes the queue as it is",
        ),
        ("http", "{server: 'amqp://rabbit', downlinks: {}}", "names no routing key"),
        ("loriot", "{server: 'amqp://rabbit', downlinks: {}}", "posts its downlinks"),
        ("ttn_v2", "{server: 'amqp://rabbit', routing_key: a.b}", "reads its own topics"),
        ("azure_iot_hub", "{server: 'amqp://h'}", "comes from its platform's own MQTT broker"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, dialect: str, connection: str, says: str) -> None:
    """A fault of the connection is told in words."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, dialect, connection)
    assert says in "\n".join(fault.message for fault in caught.value.faults)


def test_a_dot_in_a_topic_is_said(tmp_path: Path) -> None:
    """A template with a dot would never match: keys have dots between words."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "mqtt", "{server: 'amqp://rabbit'}", "options: {topic: 'v1.0/{device_id}'}")
    assert "read as another level" in caught.value.faults[0].message


@pytest.mark.parametrize(
    ("dialect", "downlinks", "published"),
    [
        ("ttn_v2", None, True), ("mqtt", None, True), ("chirpstack", None, False),
        ("http", None, False), ("ttn_v2", "http", False), ("helium", None, False),
    ],
)  # fmt: skip
def test_who_publishes_downlinks(dialect: str, downlinks: Any, published: bool) -> None:
    """Those whose network server listens there do, unless the user says `http`."""
    given = {"server": "amqp://rabbit", "downlinks": downlinks}
    config = AmqpSourceConfig.model_validate(given)
    assert (config.way_down(dialects()[dialect]) is not None) is published
