"""What is wrong with a sink's YAML is said while it is read, of every transport."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.sink import library
from pipeline.sink.transport import transports

FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("mqtt", {"server": "mqtt://b", "topic": "a/#"}, "no + and no #"),
    (
        "mqtt",
        {"server": "mqtt://b", "topic": "a/{nobody}"},
        "{nobody} is not known here; there are",
    ),
    ("mqtt", {"server": "mqtt://b", "topic": "a/{device"}, "a brace has no other half"),
    ("mqtt", {"server": "http://b", "topic": "a"}, "must be an address as mqtts://"),
    ("mqtt", {"server": "mqtt://b", "topic": "a", "tls": {}}, "`tls` needs a server as mqtts://"),
    ("postgresql", {"url": "mysql://x/y"}, "must be an address as postgresql://"),
    ("postgresql", {"url": "postgresql://h/d", "table": "a b"}, "pattern"),
    ("postgresql", {"url": "postgresql://h/d", "table": 'a"; DROP TABLE b'}, "pattern"),
    ("postgresql", {"url": "postgresql://h/d?passfile=x"}, "`passfile` is not known here"),
    ("kafka", {"servers": "h:1", "topic": "a b"}, "a topic is made of letters"),
    ("kafka", {"servers": "h:1", "topic": "a", "tls": {}}, "`tls` needs `security: tls`"),
    ("redis", {"url": "http://h", "stream": "s"}, "must be an address as rediss://"),
    ("redis", {"url": "redis://h/x", "stream": "s"}, "the number of the database"),
    ("redis", {"url": "redis://h", "stream": "s", "tls": {}}, "`tls` needs a url as rediss://"),
    ("amqp", {"url": "http://h"}, "must be an address as amqps://"),
    ("amqp", {"url": "amqp://h", "declare": "topic"}, "the default exchange is always there"),
    ("amqp", {"url": "amqp://h", "tls": {}}, "`tls` needs a url as amqps://"),
    ("influxdb", {"url": "http://h"}, "name a `bucket`"),
    ("influxdb", {"url": "http://h", "bucket": "b", "database": "d"}, "name a `bucket`"),
    ("influxdb", {"url": "http://h", "database": "d", "token": "t"}, "those of a `bucket`"),
    ("influxdb", {"url": "http://u:p@h", "bucket": "b"}, "stands under `token`"),
    ("influxdb", {"url": "http://h", "bucket": "b", "tags": {"time": "x"}}, "cannot be a tag"),
    ("s3", {"url": "http://h/b", "bucket": "bucket"}, "the service's address alone"),
    ("s3", {"url": "http://h", "bucket": "bucket", "prefix": "{device}/"}, "not known here"),
    ("thingsboard", {"server": "http://h", "token": "t"}, "an address as mqtts://"),
    (
        "thingsboard",
        {"api": "device", "server": "mqtt://h", "token": "t"},
        "an address as https://",
    ),
    ("thingsboard", {"api": "device", "server": "http://h", "token": "${bo}"}, "bo"),
    ("http", {"url": "http://h", "batch": 2, "format": "cloudevents_binary"}, "leave `batch` at 1"),
]
KEYS = {"access_key": "a", "secret_key": "geheim77"}


@pytest.mark.parametrize(("name", "config", "said"), FAULTS)
def test_faults_are_said(name: str, config: dict[str, Any], said: str) -> None:
    """Each mistake has a sentence that says what to write instead."""
    config = config | (KEYS if name == "s3" else {})
    with pytest.raises(ValidationError) as found:
        transports()[name].Config.model_validate(config)

    assert said in str(found.value)


SECRETS: dict[str, dict[str, Any]] = {
    "mqtt": {"server": "mqtt://b", "topic": "t", "user": "u", "password": "geheim77"},
    "postgresql": {"url": "postgresql://u:geheim77@h/d"},
    "kafka": {"servers": "h:1", "topic": "t", "sasl": {"user": "u", "password": "geheim77"}},
    "redis": {"url": "redis://:geheim77@h", "stream": "s"},
    "amqp": {"url": "amqp://u:geheim77@h"},
    "influxdb": {"url": "http://h", "bucket": "b", "token": "geheim77"},
    "s3": {"url": "http://h", "bucket": "bucket", **KEYS},
    "thingsboard": {"server": "mqtt://h", "token": "geheim77"},
    "http": {"url": "http://h", "format": {"ttn_v2": {"url": "http://f", "key": "geheim77"}}},
}


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_shown(name: str) -> None:
    """Neither a config's text nor its dump shows what is secret."""
    config = transports()[name].Config.model_validate(SECRETS[name])

    assert "geheim77" not in repr(config)
    assert "geheim77" not in str(config.model_dump())


LIBRARIES = {
    "mqtt": ("aiomqtt", "mqtt"),
    "thingsboard": ("aiomqtt", "mqtt"),
    "postgresql": ("asyncpg", "postgresql"),
    "kafka": ("aiokafka", "kafka"),
    "redis": ("redis", "redis"),
    "amqp": ("aio_pika", "amqp"),
    "s3": ("botocore", "s3"),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its client library a transport is a fault of the YAML, with the command that mends
    it.
    """
    module, extra = LIBRARIES[name]

    def without(wanted: str) -> Any:
        return None if wanted == module else find_spec(wanted)

    monkeypatch.setattr(library, "find_spec", without)
    monkeypatch.setattr("pipeline.rulebook.connections.mqtt_broker.find_spec", without)
    monkeypatch.setattr("pipeline.rulebook.connections.kafka_cluster.find_spec", without)
    with pytest.raises(ValidationError) as found:
        transports()[name].Config.model_validate(SECRETS[name])

    assert f"pip install 'funicular[{extra}]'" in str(found.value)
