"""Downlinks of applications through all stages: from the door to the network server, and back."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.http import Request, Response
from pipeline.rehearse.harness import Rehearsal, Stages
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port

RULES = Path(__file__).parents[2] / "rules"
V3 = "/api/v3/as/applications/sample-app/devices/tracker-1/down"
TRACKER = "sample-app:tracker-1"
ONE = {"f_port": 10, "frm_payload": "AAU=", "correlation_ids": ["mine:1"], "priority": "HIGH"}


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    scripts = script_port(ScriptLimits(), Registry())
    yield Stages(load_rules([RULES], scripts, {})["demo"], scripts)
    scripts.close()


def pushed(*downlinks: dict[str, Any]) -> bytes:
    return orjson.dumps({"downlinks": downlinks})


def up(kind: str, body: dict[str, Any], *correlation_ids: str) -> Request:
    """Return what The Things Stack's webhook posts."""
    ids = {"device_id": "tracker-1", "application_ids": {"application_id": "sample-app"}}
    document = {"end_device_ids": ids, "correlation_ids": list(correlation_ids), kind: body}
    return Request(orjson.dumps(document), headers={"content-type": "application/json"})


async def states(flow: Rehearsal, device: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = orjson.loads((await flow.ask("GET", device, "downlinks")).body)[
        "downlinks"
    ]
    return listed


async def test_v3_push_reaches_the_things_stack(stages: Stages) -> None:
    """A push to a device that was never heard goes by the one integration of that system, with
    the application's correlation ids behind ours.
    """
    flow = Rehearsal(stages)
    answer = await flow.apply("POST", f"{V3}/push", pushed(ONE))

    assert (answer.status, answer.body) == (200, b"{}")
    (handed,) = flow.handed
    assert handed.call is not None
    assert handed.call.url.endswith(f"{V3}/push")
    (sent,) = orjson.loads(handed.call.body)["downlinks"]
    downlink_id = answer.headers["x-funicular-downlinks"]
    assert sent["correlation_ids"] == [f"funicular:{downlink_id}", "mine:1"]
    assert (sent["frm_payload"], sent["f_port"], sent["priority"]) == ("AAU=", 10, "HIGH")


@pytest.mark.parametrize(
    ("news", "ends"),
    [
        ([("downlink_queued", {})], "accepted"),
        ([("downlink_queued", {}), ("downlink_sent", {})], "accepted"),
        ([("downlink_sent", {}), ("downlink_ack", {})], "acknowledged"),
        ([("downlink_nack", {})], "not_acknowledged"),
        ([("downlink_nack", {}), ("downlink_ack", {})], "acknowledged"),
        ([("downlink_failed", {"error": {"name": "application_downlink_too_long"}})], "failed"),
        ([("downlink_queue_invalidated", {"downlinks": [{}]})], "failed"),
    ],
)
async def test_reports_of_the_things_stack(
    stages: Stages, news: list[tuple[str, dict[str, Any]]], ends: str
) -> None:
    """Each of its reports moves on the downlink whose correlation id is ours, and no other."""
    flow = Rehearsal(stages)
    answer = await flow.apply("POST", f"{V3}/push", pushed(ONE, ONE))
    first, second = answer.headers["x-funicular-downlinks"].split(",")
    ours = ["as:downlink:01", f"funicular:{first}"]

    for number, (kind, body) in enumerate(news):
        told = {"f_port": 10, "correlation_ids": ours}
        if kind == "downlink_failed":
            told = {"downlink": told, **body}
        elif kind == "downlink_queue_invalidated":
            told = {"downlinks": [told], "last_f_cnt_down": 1}
        request = up(kind, told, f"as:up:{number}")
        assert (await flow.enter("tts-trackers", request)).status == 202

    by_id = {one["id"]: one for one in await states(flow, TRACKER)}
    assert (by_id[first]["state"], by_id[second]["state"]) == (ends, "sent")
    if ends == "failed":
        assert by_id[first]["reason"] in ("application_downlink_too_long", "invalidated")
    assert flow.records(topics.DEAD_LETTER) == []


async def test_v3_list_and_clear(stages: Stages) -> None:
    """While the network server is away its queue waits here and is listed; `replace` with nothing
    empties both.
    """
    flow = Rehearsal(stages)
    flow.mood = "is_away"
    await flow.apply("POST", f"{V3}/push", pushed(ONE, {**ONE, "f_port": 11}))

    listed = orjson.loads((await flow.apply("GET", V3)).body)["downlinks"]
    assert [one["f_port"] for one in listed] == [10, 11]
    assert listed[0]["correlation_ids"][1] == "mine:1"

    await flow.apply("POST", f"{V3}/replace", pushed())
    flow.mood = "takes"
    await flow.wait(1)
    assert [one["state"] for one in await states(flow, TRACKER)] == ["sent", "cancelled"]
    cleared = flow.handed[-1]
    assert cleared.call is not None
    assert cleared.call.url.endswith(f"{V3}/replace")
    assert orjson.loads(cleared.call.body) == {"downlinks": []}


async def test_network_servers_queue_beside_ours(stages: Stages) -> None:
    """`?network_server=true` shows what the network server holds, and which of it is ours."""
    flow = Rehearsal(stages)
    answer = await flow.apply("POST", f"{V3}/push", pushed(ONE))
    ours = answer.headers["x-funicular-downlinks"]
    held = {**ONE, "correlation_ids": [f"funicular:{ours}"], "f_cnt": 7}
    flow.network_queue = Response(200, orjson.dumps({"downlinks": [held]}))

    said = await flow.ask("GET", TRACKER, "downlinks", query={"network_server": "true"})

    shown = orjson.loads(said.body)
    assert [one["state"] for one in shown["downlinks"]] == ["sent"]
    (queued,) = shown["network_servers"]["tts-trackers"]["downlinks"]
    assert (queued["ours"], queued["payload"], queued["detail"]["f_cnt"]) == (ours, "AAU=", 7)
    assert b"api_key" not in said.body
    flow.mood = "is_away"
    away = await flow.ask("GET", TRACKER, "downlinks", query={"network_server": "true"})
    assert orjson.loads(away.body)["network_servers"]["tts-trackers"] == {"error": "no answer"}


async def test_v2_fields_go_through_the_encoder(stages: Stages) -> None:
    """`payload_fields` of a TTN v2 application become the converter's bytes, for whatever link the
    device has: here a Sigfox device that can only be answered.
    """
    flow = Rehearsal(stages)
    body = {"dev_id": "1A2B3C", "payload_fields": {"valve": "closed", "interval": 10}}
    address = "/handler/api/v2/down/acme/sigfox-meters"
    assert (await flow.apply("POST", address, orjson.dumps(body))).status == 202

    (queued,) = await states(flow, "1A2B3C")
    assert (queued["state"], queued["payload"]) == (
        "queued",
        b64encode(bytes.fromhex("00000a0000000000")).decode(),
    )


async def test_idempotency_key_has_one_effect(stages: Stages) -> None:
    """At both doors and at the API: the second request is answered as the first, and one downlink
    is there.
    """
    flow = Rehearsal(stages)
    headers = {"idempotency-key": "k1"}
    first = await flow.apply("POST", f"{V3}/push", pushed(ONE), headers=headers)
    second = await flow.apply("POST", f"{V3}/push", pushed(ONE), headers=headers)
    assert (first.status, first.headers) == (second.status, second.headers)
    assert len(flow.handed) == 1

    body = b'{"payload": "AAU=", "f_port": 10, "integration": "tts-trackers"}'
    one = await flow.ask("POST", TRACKER, "downlinks", body=body, headers=headers)
    assert one.status == 422, "the key was another request's"
    headers = {"idempotency-key": "k2"}
    one = await flow.ask("POST", TRACKER, "downlinks", body=body, headers=headers)
    two = await flow.ask("POST", TRACKER, "downlinks", body=body, headers=headers)
    assert (one.status, one.body) == (202, two.body)
    assert len(flow.handed) == 2


async def test_refusals_in_the_systems_words(stages: Stages) -> None:
    """A payload that LoRaWAN cannot carry is refused as The Things Stack does, and none of its
    request goes.
    """
    flow = Rehearsal(stages)
    long = {"f_port": 1, "frm_payload": b64encode(bytes(243)).decode()}
    refused = await flow.apply("POST", f"{V3}/push", pushed(ONE, long))

    error = orjson.loads(refused.body)
    assert (refused.status, error["details"][0]["name"]) == (400, "application_downlink_too_long")
    assert flow.handed == []
    reasons = {one["reason"] for one in await states(flow, TRACKER)}
    assert reasons == {"rejected_together", "payload_length"}


async def test_sigfox_acknowledge(stages: Stages) -> None:
    """Sigfox's ACKNOWLEDGE names no downlink: it moves the last one that Sigfox got."""
    flow = Rehearsal(stages)
    meter = next(one for one in flow.book.integrations.values() if one.dialect.name == "sigfox")
    body = {"payload": b64encode(bytes(8)).decode(), "integration": meter.name}
    await flow.ask("POST", "1A2B3C", "downlinks", body=orjson.dumps(body))
    asked = meter.dialect.sample("1A2B3C", 1, bytes(8), flow.now_ms())
    with flow.without_chains():
        assert (await flow.enter(meter.name, asked)).status == 200

    news = {"device": "1A2B3C", "time": "1700000000", "infoCode": 0, "infoMessage": "Acked",
            "downlinkAck": "true"}  # fmt: skip
    told = Request(orjson.dumps(news), headers={"content-type": "application/json"})
    assert (await flow.enter(meter.name, told)).status in (200, 204)

    assert (await states(flow, "1A2B3C"))[0]["state"] == "acknowledged"
