"""Any Kafka client may write uplinks, and read every topic."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer
from jsonschema import Draft202012Validator

from pipeline.convert.stage import Convert
from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.ports import Batch, DeviceState, ScriptCall
from pipeline.rulebook.book import Rulebook
from pipeline.topics import DEAD_LETTER, DEVICE_EVENTS, UPLINK_RECEIVED, schemas
from tests.kafka.brokers import Brokers
from tests.kafka.test_edges_log import opened, settings_of, stored, take
from tests.made_integration import made_integration

PLAIN = b'[{"deviceName": "meter-1", "telemetry": {"litres": 7}}]'
TTN = orjson.dumps(
    {
        "app_id": "app",
        "dev_id": "dev1",
        "hardware_serial": "0102030405060708",
        "port": 1,
        "counter": 5,
        "payload_raw": "AQI=",
        "payload_fields": {"t": 1},
        "metadata": {"time": "2026-11-21T10:00:00Z"},
    }
)
HEADERS = {
    "ce_specversion": "1.0",
    "ce_type": "com.example.meter",
    "ce_source": "/elsewhere",
    "ce_id": "their-id-1",
    "ce_tenant": "acme",
    "ce_integration": "ttn",
}


class NoScripts:
    """There are no converters in these rules."""

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        assert not calls
        return []

    def close(self) -> None:
        pass


def book() -> Rulebook:
    integrations = {}
    for name, dialect in (("plain", "http"), ("ttn", "ttn_v2")):
        spoken = dialects()[dialect]
        integrations[name] = made_integration(
            name=name,
            dialect=spoken,
            options=spoken.options(),
            device_template=spoken.device_template,
            body_bytes_max=2**20,
        )
    return Rulebook("acme", Path(), "v1", integrations, {}, {}, {})


def produce(
    brokers: Brokers, topic: str, value: bytes, key: str | None, headers: Mapping[str, str]
) -> None:
    """Write one record by kcat where it is installed, and by librdkafka's own client elsewhere."""
    if shutil.which("kcat"):
        command = ["kcat", "-P", "-b", brokers.bootstrap, "-t", topic]
        command += ["-k", key] if key is not None else []
        for name, text in headers.items():
            command += ["-H", f"{name}={text}"]
        subprocess.run(command, input=value, check=True, timeout=30)
        return
    assert not os.environ.get("CI"), "no kcat; deploy/prepare-ci installs it"
    producer = Producer({"bootstrap.servers": brokers.bootstrap, "log_level": 0})
    producer.produce(topic, value, key=key, headers=dict(headers))
    assert producer.flush(30) == 0


async def test_uplinks_of_any_client_go_through_and_can_be_read(
    kafka: Brokers, prefix: str
) -> None:
    """Without headers a record belongs to the integration of its key, or to the configured one;
    CloudEvents headers are respected; foreign bytes end as a dead letter; what comes out is valid
    by the published schemas.
    """
    kafka.create({prefix + name: 3 for name in (UPLINK_RECEIVED, DEVICE_EVENTS, DEAD_LETTER)})
    topic = prefix + UPLINK_RECEIVED
    produce(kafka, topic, PLAIN, None, {})
    produce(kafka, topic, PLAIN.replace(b"meter-1", b"meter-2"), "some key", {})
    produce(kafka, topic, TTN, "acme/ttn", {})
    produce(kafka, topic, TTN.replace(b"dev1", b"dev2"), None, HEADERS)
    produce(kafka, topic, b"\xff\xfe", "acme/ttn", {"note": "what is this"})
    stage = Convert(
        lambda: {"acme": book()}, NoScripts(), Registry(), default_integration="acme/plain"
    )
    async with opened(settings_of(kafka, prefix), DEVICE_EVENTS, DEAD_LETTER) as log:
        records = await take(log.read(UPLINK_RECEIVED, "convert"), 5)
        await log.append(stage.handle(Batch(0, records), DeviceState(lambda _: {}), 0))
    events = [
        (key.decode(), orjson.loads(value), headers)
        for _, key, value, headers in stored(kafka, prefix + DEVICE_EVENTS, 3)
    ]
    valid = Draft202012Validator(schemas()[DEVICE_EVENTS])
    for _, event, _ in events:
        valid.validate(event)
    assert {(event["device"], event["integration"]) for _, event, _ in events} == {
        ("meter-1", "plain"),
        ("meter-2", "plain"),
        ("app:dev1", "ttn"),
        ("app:dev2", "ttn"),
    }
    assert all(key == f"acme/{event['device']}" for key, event, _ in events)
    traces = {event["device"]: headers["trace"] for _, event, headers in events}
    assert [trace for device, trace in traces.items() if "dev2" in device] == [b"their-id-1"]
    (letter,) = [orjson.loads(each[2]) for each in stored(kafka, prefix + DEAD_LETTER, 3)]
    Draft202012Validator(schemas()[DEAD_LETTER]).validate(letter)
    assert (letter["value"], letter["headers"]) == ("//4=", {"note": "what is this"})
    for name in (DEVICE_EVENTS, DEAD_LETTER):
        check = Draft202012Validator(schemas()[name])
        for value in read_lines(kafka, prefix + name):
            check.validate(orjson.loads(value))


def read_lines(brokers: Brokers, topic: str) -> list[bytes]:
    """Read a topic by kcat, a record a line, where it is installed."""
    if not shutil.which("kcat"):
        return []
    command = ["kcat", "-C", "-b", brokers.bootstrap, "-t", topic, "-o", "beginning", "-e", "-q"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert done.stdout
    return done.stdout.splitlines()
