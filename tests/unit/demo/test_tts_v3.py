"""The simulated The Things Stack v3."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from random import Random
from typing import Any

import aiohttp
import pytest

from pipeline.demo.callbacks import Callbacks, Clock
from pipeline.demo.fleet import Tracker
from pipeline.demo.tts_v3 import PATH, TtsV3, ulid
from pipeline.integrations.dialect import dialects
from pipeline.model.downlink import Downlink, State
from pipeline.model.uplink import Link

KEY = {"authorization": "Bearer s"}
PUSH = f"{PATH}/api/v3/as/applications/acme/devices/tracker-1/down/push"


@pytest.fixture
def tracker() -> Tracker:
    return Tracker("tracker-1", Random(1))


@pytest.fixture
async def server(tracker: Tracker, callbacks: Callbacks, serve: Any) -> Any:
    made = TtsV3(
        [tracker], callbacks, Clock(1.0), application="acme", key="s", window_s=0,
        requests_a_minute=4,
    )  # fmt: skip
    made.url = await serve(made)
    yield made
    await made.close()


def pushed(payload: bytes, **more: Any) -> dict[str, Any]:
    return {"downlinks": [{"f_port": 5, "frm_payload": b64encode(payload).decode(), **more}]}


async def settled(receiver: Any, requests: int) -> None:
    async with asyncio.timeout(5):
        while len(receiver.requests) < requests:
            receiver.came.clear()
            await receiver.came.wait()


async def test_join_and_uplink_are_read_by_the_dialect(
    server: TtsV3, tracker: Tracker, receiver: Any
) -> None:
    """A device joins before its first uplink; the dialect reads both, the zero counter too."""
    await server.uplink(tracker)

    join, uplink = receiver.read("tts_v3")
    assert (join.type, uplink.type) == ("join", "uplink")
    assert join.device == uplink.device == "acme:tracker-1" == server.name(tracker)
    assert len(uplink.payload) == 10
    assert (uplink.f_port, uplink.f_cnt) == (2, 0)
    assert uplink.metadata["frequency"] == 868_300_000
    assert uplink.repeat_key
    assert b"f_cnt" not in receiver.requests[1].body, "zero fields are left out"


@pytest.mark.parametrize("confirmed", [False, True])
async def test_downlink_by_the_dialect_reaches_the_device(
    server: Any,
    tracker: Tracker,
    receiver: Any,
    session: aiohttp.ClientSession,
    confirmed: bool,
) -> None:
    """The dialect's request is taken; the device obeys after its next uplink; the reports name
    Funicular's own id, an acknowledgement last and only where it was asked for.
    """
    await server.uplink(tracker)
    downlink = Downlink(
        id="d1", tenant="demo", device="acme:tracker-1", integration="x", state=State.SENDING,
        requested_ms=0, changed_ms=0, payload=b"\0\7", f_port=5, queue="replace",
        confirmed=confirmed,
    )  # fmt: skip
    dialect = dialects()["tts_v3"]
    options = dialect.options(server=server.url + PATH, api_key="s")
    call = dialect.send(downlink, Link(application_id="acme", device_id="tracker-1"), options)

    async with session.post(call.url, data=call.body, headers=call.headers) as answer:
        assert (answer.status, await answer.json()) == (200, {})
        assert answer.headers["X-Rate-Limit-Available"] == "3"
    assert tracker.interval == 10
    assert server.waiting(tracker) == 1
    await server.uplink(tracker)
    assert tracker.interval == 7
    await server.uplink(tracker)
    await settled(receiver, 7 if confirmed else 6)

    reports = [report for uplink in receiver.read("tts_v3") for report in uplink.reports]
    assert {report.downlink_id for report in reports} == {"d1"}
    assert sorted(report.detail["event"] for report in reports) == [
        *(["downlink_ack"] if confirmed else []), "downlink_queued", "downlink_sent",
    ]  # fmt: skip


async def test_replace_clears_and_the_queue_can_be_seen(
    server: Any, tracker: Tracker, session: aiohttp.ClientSession
) -> None:
    """`push` appends, `replace` leaves only its own, and GET tells the queue."""
    await server.join(tracker)
    for operation, waiting in (("push", 1), ("push", 2), ("replace", 1)):
        url = f"{server.url}{PUSH}".replace("push", operation)
        async with session.post(url, json=pushed(b"\0\1"), headers=KEY) as answer:
            assert answer.status == 200
        assert server.waiting(tracker) == waiting

    async with session.get(f"{server.url}{PUSH}".removesuffix("/push"), headers=KEY) as answer:
        (waits,) = (await answer.json())["downlinks"]
    assert (waits["f_port"], waits["frm_payload"], waits["f_cnt"]) == (5, "AAE=", 3)


@pytest.mark.parametrize(
    ("headers", "place", "body", "status", "name"),
    [
        ({}, "", {}, 403, "no_application_rights"),
        ({"authorization": "Bearer x"}, "", {}, 401, "invalid_token"),
        (KEY, "tracker-9", {}, 404, "device_not_found"),
        (KEY, "", pushed(b""), 400, "no_payload"),
        (KEY, "", {"downlinks": [{"frm_payload": "AA=="}]}, 400, "no_f_port"),
        (KEY, "", {"downlinks": [{"f_port": 1, "frm_payload": "§"}]}, 400, "decode_body"),
        (KEY, "", ["?"], 400, "decode_body"),
        (KEY, "", pushed(bytes(256)), 400, "validation"),
        (KEY, "", pushed(b"1", correlation_ids=["x" * 101]), 400, "validation"),
        (KEY, "", {"downlinks": pushed(b"1")["downlinks"] * 10_001}, 429, "queue_capacity"),
    ],
)
async def test_bad_requests_get_the_error_json(  # noqa: PLR0917 - fixtures and parameters
    server: Any,
    tracker: Tracker,
    session: aiohttp.ClientSession,
    headers: dict[str, str],
    place: str,
    body: Any,
    status: int,
    name: str,
) -> None:
    """Each fault has The Things Stack's status and error name, and nothing is queued."""
    await server.join(tracker)
    url = f"{server.url}{PUSH}".replace("tracker-1", place or "tracker-1")

    async with session.post(url, json=body, headers=headers) as answer:
        told = await answer.json()

    assert answer.status == status
    assert told["details"][0]["name"] == name
    assert told["message"].startswith("error:pkg/")
    assert server.waiting(tracker) == 0


async def test_too_many_requests_are_told_when_to_come_again(
    server: Any, tracker: Tracker, session: aiohttp.ClientSession
) -> None:
    """Past the limit: 429 with code 8 and the seconds to wait."""
    await server.join(tracker)
    for _ in range(4):
        async with session.post(server.url + PUSH, json=pushed(b"1"), headers=KEY) as answer:
            assert answer.status == 200
    async with session.post(server.url + PUSH, json=pushed(b"1"), headers=KEY) as answer:
        assert answer.status == 429
        assert (await answer.json())["code"] == 8
        assert 0 < int(answer.headers["X-Rate-Limit-Retry"]) <= 60


def test_ulids_are_distinct_and_in_order_of_time() -> None:
    """A ULID has 26 characters of Crockford's base 32."""
    made = {ulid() for _ in range(100)}

    assert len(made) == 100
    assert all(len(each) == 26 and not set(each) & set("ILOU") for each in made)
