"""The main job through all stages in one process, with the demo's rules: what each topic holds."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.http import Request
from pipeline.model.record import CAUSE_ID, EVENT_ID, RULES_VERSION, TENANT, TRACE_ID
from pipeline.rehearse.harness import Rehearsal, Stages
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port

RULES = Path(__file__).parents[2] / "rules"


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    scripts = script_port(ScriptLimits(), Registry())
    yield Stages(load_rules([RULES], scripts, {})["demo"], scripts)
    scripts.close()


def thermostat(temperature: float, counter: int = 1) -> Request:
    """Return a TTN v2 uplink of one thermostat."""
    payload = round(temperature * 10).to_bytes(2, "big") + bytes([90, 0])
    body = {
        "app_id": "acme",
        "dev_id": "room-1",
        "hardware_serial": "0102030405060708",
        "port": 1,
        "counter": counter,
        "payload_raw": b64encode(payload).decode(),
        "metadata": {"time": f"2026-11-21T10:00:{counter:02}Z"},
        "downlink_url": "http://127.0.0.1:9/down/acme/process?key=k",
    }
    return Request(orjson.dumps(body))


def values(flow: Rehearsal, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"{}") for record in flow.records(topic)]


async def test_a_changed_attribute_sends_a_downlink(stages: Stages) -> None:
    """From `PATCH …/attributes/shared` to the request that The Things Network v2 receives."""
    flow = Rehearsal(stages)
    assert (await flow.enter("ttn-thermostats", thermostat(21))).status == 202

    said = await flow.ask("PATCH", "acme:room-1", "attributes/shared", body=b'{"target": 18.5}')

    assert said.status == 200
    (handed,) = flow.handed
    assert handed.call is not None
    assert handed.call.url == "http://127.0.0.1:9/down/acme/process?key=k"
    assert orjson.loads(handed.call.body) == {
        "dev_id": "room-1",
        "port": 10,
        "confirmed": False,
        "schedule": "replace",
        "payload_raw": "AAC5",
    }
    states = [status["state"] for status in values(flow, topics.DOWNLINK_STATUS)]
    assert states == ["requested", "encoded", "queued", "sending", "sent"]


async def test_a_rule_closes_the_loop(stages: Stages) -> None:
    """Too warm: the rule sets an attribute, and that sends the downlink, once for all uplinks."""
    flow = Rehearsal(stages)
    for counter in (1, 2):
        await flow.enter("ttn-thermostats", thermostat(26, counter))

    (handed,) = flow.handed
    assert handed.delivery.downlink is not None
    assert handed.delivery.downlink.payload == bytes.fromhex("0100dc")
    assert handed.delivery.downlink.source == "thermostats/tell the device"


async def test_every_record_says_where_it_came_from(stages: Stages) -> None:
    """Every record past the door has its id, its cause, the trace of the uplink, and the rules."""
    flow = Rehearsal(stages)
    await flow.enter("ttn-thermostats", thermostat(26))

    past = [out for out in flow.journal if out.topic != topics.UPLINK_RECEIVED]
    caused = [out for out in past if not out.headers[TRACE_ID].startswith("r1")]
    assert caused == [], "all of it came of this one uplink"
    for out in past:
        assert {EVENT_ID, CAUSE_ID, TENANT} <= set(out.headers)
    stage_made = [out for out in past if out.headers.get(RULES_VERSION)]
    assert {out.headers[RULES_VERSION] for out in stage_made} == {flow.book.version}
    assert {topics.DEVICE_EVENTS, topics.DOWNLINK_REQUESTED, topics.DOWNLINK_STATUS} <= {
        out.topic for out in stage_made
    }


async def test_a_repeat_has_no_second_effect(stages: Stages) -> None:
    """The network server's repeat of an uplink is delivered to nobody again."""
    flow = Rehearsal(stages)
    for _ in range(2):
        assert (await flow.enter("ttn-thermostats", thermostat(26))).status == 202

    assert len(values(flow, topics.UPLINK_RECEIVED)) == 2
    assert len(values(flow, topics.delivery_topic("demo", "archive"))) == 1
    assert len(flow.handed) == 1
