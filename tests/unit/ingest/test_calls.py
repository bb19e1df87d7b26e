"""Calls to a device through the API, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pipeline.model.http import Response
from pipeline.model.record import Outgoing
from pipeline.model.reply import Reply, ReplyTo
from pipeline.topics import DEVICE_EVENTS

if TYPE_CHECKING:
    from conftest import World

PATH = "/api/v1/tenants/acme/devices/d1/calls"
QUEUED = {"id": "id1.downlink", "state": "queued"}
REPLIED = {"id": "id1.downlink", "state": "replied", "reply": {"telemetry": {"x": 1}}}


async def call(world: World, asked: Any, **headers: str) -> Response:
    admitted = world.api.admit("POST", PATH, {"host": "localhost", **headers}, "127.0.0.1")
    if isinstance(admitted, Response):
        return admitted
    return await world.api.handle(admitted, {}, orjson.dumps(asked))


def answering(*replies: dict[str, Any]) -> Any:
    """An owner that answers in these parts."""

    def answer(record: Outgoing, to: ReplyTo) -> list[Reply]:
        return [Reply(to.request, **reply) for reply in replies]

    return answer


def made(world: World, asked: Any, **headers: str) -> Response:
    """The answer to one call, in a world of its own."""

    async def work() -> Response:
        return await call(world, asked, **headers)

    response: Response = world.run(work)
    assert len(world.waiting) == 0
    return response


FIRST = {"part": 1, "of": 2, "status": 202, "body": QUEUED}


def test_reply_is_the_answer(world: World) -> None:
    """The owner gets the downlink, what the reply is and until when somebody waits; its second
    part is the answer.
    """
    world.log.answer = answering(FIRST, {"part": 2, "of": 2, "status": 200, "body": REPLIED})

    response = made(
        world,
        {"fields": {"ask": "position"}, "f_port": 4, "timeout": "30s", "number_field": "number",
         "reply": "telemetry.number == metadata.call.number"},
        **{"idempotency-key": "k1"},
    )  # fmt: skip

    assert (response.status, orjson.loads(response.body)) == (200, REPLIED)
    (event,) = world.log.events(DEVICE_EVENTS)
    request = {"fields": {"ask": "position"}, "f_port": 4, "source": "local"}
    digest = event.pop("idempotency")
    assert (digest["key"], len(digest["request"])) == ("k1", 32)
    assert event == {
        "kind": "device_call",
        "id": "id1",
        "tenant": "acme",
        "device": "d1",
        "time_ms": world.now_ms,
        "request": request,
        "timeout_ms": 30_000,
        "reply": "telemetry.number == metadata.call.number",
        "number_field": "number",
        "by": "local",
    }
    deadline = orjson.loads(world.log.records[0].headers["reply_to"])["deadline_ms"]
    assert deadline == world.now_ms + 30_000


@pytest.mark.parametrize(
    ("persistent", "status", "said"),
    [
        (False, 504, {"error": {"code": "timeout", "id": "id1.downlink",
                                "message": "there was no reply within 0.001 s"}}),
        (True, 202, {"id": "id1.downlink", "state": "waiting"}),
    ],
)  # fmt: skip
def test_no_reply_in_time(world: World, persistent: bool, status: int, said: Any) -> None:
    """After the time a call is 504; a persistent one goes on, and its id says how to ask for
    it.
    """
    world.log.answer = answering(FIRST)

    response = made(world, {"fields": {}, "timeout": "1ms", "persistent": persistent})

    assert (response.status, orjson.loads(response.body)) == (status, said)


def test_owner_that_is_silent(world: World) -> None:
    """Where not even the downlink is known of, the 504 says whether to send it again."""
    alone = orjson.loads(made(world, {"fields": {}, "timeout": "1ms"}).body)
    keyed = made(world, {"fields": {}, "timeout": "1ms"}, **{"idempotency-key": "k"})

    assert alone["error"]["code"] == "owner_timeout"
    assert alone["error"]["message"].endswith("do not send it again")
    assert orjson.loads(keyed.body)["error"]["message"].endswith("ask again with the same key")


def test_downlink_that_cannot_be_made(world: World) -> None:
    """It is refused at once, as a downlink would be, and the owner is told that the call ended."""
    failed = {"id": "id1.downlink", "state": "failed", "reason": "no_encoder",
              "detail": {"message": "there is no encoder"}}  # fmt: skip
    world.log.answer = answering({"status": 422, "body": failed})

    response = made(world, {"fields": {}})

    assert response.status == 422
    assert orjson.loads(response.body)["error"] == {
        "code": "no_encoder", "message": "there is no encoder", "id": "id1.downlink"
    }  # fmt: skip
    told = world.log.events(DEVICE_EVENTS)[1]
    assert (told["kind"], told["call"], told["how"]) == ("call_ended", "id1.downlink", "failed")
    assert (told["reason"], told["detail"]) == ("no_encoder", {"status": 422})


@pytest.mark.parametrize("status", [400, 404, 429, 422])
def test_owners_refusal_is_the_answer(world: World, status: int) -> None:
    """What the owner refuses is said in its words, and nothing more is told to it."""
    world.log.answer = answering({"status": status, "body": {"error": {"code": "no"}}})

    response = made(world, {"fields": {}})

    assert (response.status, response.body) == (status, b'{"error":{"code":"no"}}')
    assert len(world.log.records) == 1


def test_call_one_way(world: World) -> None:
    """`until: queued` waits for nobody: 202 with the downlink, as its owner answers."""
    world.log.answer = answering({"status": 202, "body": QUEUED})

    response = made(world, {"payload": "AQ==", "until": "queued"}, **{"idempotency-key": "k"})

    assert (response.status, orjson.loads(response.body)) == (202, QUEUED)
    (event,) = world.log.events(DEVICE_EVENTS)
    assert (event["kind"], event["idempotency"]["key"]) == ("downlink", "k")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "payload"),
        ({"fields": {}, "payload": "AQ=="}, "payload"),
        ({"fields": {}, "timeout": "soon"}, "timeout"),
        ({"fields": {}, "timeout": "6m"}, "timeout"),
        ({"fields": {}, "timeout": "0s"}, "timeout"),
        ({"fields": {}, "until": "later"}, "until"),
        ({"fields": {}, "until": "sent", "reply": "true"}, "until"),
        ({"fields": {}, "until": "queued", "timeout": "1s"}, "until"),
        ({"payload": "AQ==", "number_field": "n"}, "number_field"),
        ({"fields": {}, "reply": "x" * 1_001}, "reply"),
    ],
)
def test_wrong_body(world: World, asked: Any, field: str) -> None:
    """It is refused with the field that is wrong, and nobody is asked."""
    response = made(world, asked)

    assert response.status == 400
    assert orjson.loads(response.body)["error"]["field"] == field
    assert world.log.records == []


def test_rights(world: World) -> None:
    """Asking for calls needs `read`, making one `write`."""

    async def work() -> None:
        _, reads = world.keys.create("acme", ("read",))
        key = {"authorization": f"Bearer {reads}", "host": "localhost"}
        assert isinstance(world.api.admit("GET", PATH, key, "127.0.0.1"), tuple)
        refused = world.api.admit("POST", PATH, key, "127.0.0.1")
        assert isinstance(refused, Response)
        assert refused.status == 403

    world.run(work)
