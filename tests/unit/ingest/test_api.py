"""The API, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pipeline.errors import StorageFullError
from pipeline.model.http import Response
from pipeline.model.record import Outgoing
from pipeline.model.reply import Reply, ReplyTo
from pipeline.topics import DEVICE_EVENTS

if TYPE_CHECKING:
    from conftest import World

ROOT = "/api/v1/tenants/acme/devices/"
HOST = {"host": "localhost:8080"}


async def call(
    world: World,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    **query: str,
) -> Response:
    admitted = world.api.admit(method, ROOT + path, {**HOST, **(headers or {})}, "127.0.0.1")
    if isinstance(admitted, Response):
        return admitted
    return await world.api.handle(admitted, query, body)


def said(response: Response) -> Any:
    return orjson.loads(response.body)


class Owner:
    """Answers as the stages do; keeps attributes of one scope."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __call__(self, record: Outgoing, to: ReplyTo) -> list[Reply]:
        event = orjson.loads(record.value or b"")
        for name in event.get("delete", ()):
            self.values.pop(name, None)
        self.values.update(event.get("set", {}))
        return [Reply(to.request, status=200, body=dict(self.values))]


def test_a_command_is_answered_by_its_owner(world: World) -> None:
    """The event goes to the device's partition with who waits; the owner's reply is the
    answer; a read sees the write before it.
    """
    world.log.answer = Owner({"old": 1})

    async def work() -> None:
        changed = await call(world, "PATCH", "a%2Fb/attributes/shared", b'{"target": 21}')
        assert (changed.status, said(changed)) == (200, {"old": 1, "target": 21})
        read = await call(world, "GET", "a%2Fb/attributes/shared")
        assert said(read) == {"old": 1, "target": 21}
        assert len(world.waiting) == 0

    world.run(work)

    first = world.log.records[0]
    assert (first.topic, first.key) == (DEVICE_EVENTS, "acme/a/b")
    assert orjson.loads(first.headers.pop("reply_to")) == {
        "instance": "inst",
        "request": "id1",
        "deadline_ms": world.now_ms + 5_000,
        "partition": 3,
    }
    assert first.headers == {
        "id": "id1",
        "trace": "id1",
        "cause": "id1",
        "tenant": "acme",
        "rules": "v1",
        "schema": "1",
    }
    assert world.log.events(DEVICE_EVENTS)[0]["by"] == "local"


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        ({"status": 404, "body": {"error": {"code": "no"}}}, 404, b'{"error":{"code":"no"}}'),
        ({"status": 202, "body": {"payload": b"\x01"}}, 202, b'{"payload":"AQ=="}'),
        ({"status": 200}, 200, b"{}"),
        ({"status": 204}, 204, b""),
    ],
)
def test_the_owners_words_are_the_answer(
    world: World, reply: dict[str, Any], status: int, body: bytes
) -> None:
    """Status and body of the reply are the answer's, errors too."""
    world.log.answer = lambda record, to: [Reply(to.request, **reply)]

    async def work() -> None:
        response = await call(world, "GET", "d1")
        assert (response.status, response.body) == (status, body)

    world.run(work)


def test_all_attributes_can_be_deleted(world: World) -> None:
    """Without `keys` those that are there are deleted; with `keys`, those."""
    owner = world.log.answer = Owner({"a": 1, "b": 2, "c": 3})

    async def work() -> None:
        await call(world, "DELETE", "d1/attributes/server", keys="a")
        assert owner.values == {"b": 2, "c": 3}
        response = await call(world, "DELETE", "d1/attributes/server", keys="")
        assert response.status == 400, "an empty list of names is a slip, not all of them"
        assert owner.values == {"b": 2, "c": 3}
        response = await call(world, "DELETE", "d1/attributes/server")
        assert (response.status, said(response)) == (200, {})
        response = await call(world, "DELETE", "d1/attributes/server")
        assert (response.status, said(response)) == (200, {})

    world.run(work)

    kinds = [event["kind"] for event in world.log.events(DEVICE_EVENTS)]
    assert kinds == ["attributes_change", "query", "attributes_change", "query"]


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [("DELETE", "d1", "stored and will be done"), ("GET", "d1", "ask again")],
)
def test_an_owner_that_is_silent_is_504(world: World, method: str, path: str, words: str) -> None:
    """After the time a command's 504 says that it will be done, a query's to ask again; a reply
    that comes later harms nobody.
    """
    world.settings = type(world.settings)(api_timeout_s=0.0)

    async def work() -> None:
        response = await call(world, method, path)
        assert response.status == 504
        error = said(response)["error"]
        assert words in error["message"]
        assert error["id"] == "id1"
        world.log.reply(Reply("id1"), world.instance)
        await world.turns()

    world.run(work)

    assert len(world.log.records) == 1


def test_no_room_is_503(world: World) -> None:
    """A command that is not stored is refused, and nobody is left waiting; likewise where too
    many wait.
    """

    async def work() -> None:
        world.log.fail = StorageFullError("no room")
        response = await call(world, "PATCH", "d1/attributes/shared", b'{"a": 1}')
        assert response.status == 503
        assert said(response)["error"]["code"] == "storage_full"
        assert len(world.waiting) == 0
        world.log.fail = None
        world.waiting._waiting_max = 0
        assert (await call(world, "GET", "d1")).status == 503

    world.run(work)

    assert world.log.records == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "d1/attributes/shared", 405, "method"),
        ("PUT", "d1", 405, "method"),
        ("PATCH", "d1/downlinks", 405, "method"),
        ("GET", "", 404, "not_found"),
        ("GET", "x" * 256, 400, "device_name"),
        ("GET", "a%00b", 400, "device_name"),
        ("PATCH", "d1/attributes/shared", 400, "json"),
    ],
)
def test_wrong_requests_are_refused(
    world: World, method: str, path: str, status: int, code: str
) -> None:
    """What cannot be done is refused with why, and nothing is written."""

    async def work() -> None:
        response = await call(world, method, path, b"not json")
        assert (response.status, said(response)["error"]["code"]) == (status, code)
        if status == 405:
            assert method not in response.headers["allow"]

    world.run(work)

    assert world.log.records == []


def test_rights_and_tenants_hold(world: World) -> None:
    """Each request needs its own right; a tenant without rules is 404 for whoever may ask."""
    world.log.answer = Owner({})

    async def work() -> None:
        reader = {"authorization": f"Bearer {world.keys.create('acme', ['read'])[1]}"}
        writer = {"authorization": f"Bearer {world.keys.create('acme', ['write'])[1]}"}
        admin = {"authorization": f"Bearer {world.keys.create('acme', ['admin'])[1]}"}
        other = {"authorization": f"Bearer {world.keys.create('other', ['read'])[1]}"}
        patch = b'{"a": 1}'
        for headers, get, change, forget in [
            ({}, 401, 401, 401),
            (reader, 200, 403, 403),
            (writer, 403, 200, 403),
            (admin, 403, 403, 200),
            (other, 403, 403, 403),
        ]:
            assert (await call(world, "GET", "d1", headers=headers)).status == get
            response = await call(world, "PATCH", "d1/attributes/shared", patch, headers)
            assert response.status == change
            assert (await call(world, "DELETE", "d1", headers=headers)).status == forget
        path = "/api/v1/tenants/other/devices/d1"
        refused = world.api.admit("GET", path, {**HOST, **other}, "127.0.0.1")
        assert isinstance(refused, Response)
        assert refused.status == 404

    world.run(work)
