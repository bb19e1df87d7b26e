"""The doors of applications, without sockets: what they take, how they refuse, whose device."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pipeline.integrations.tts_v3 import DIALECT as TTS_V3
from pipeline.integrations.tts_v3 import TtsV3Options
from pipeline.model.http import Response
from pipeline.model.record import Outgoing
from pipeline.model.reply import Reply, ReplyTo
from pipeline.model.uplink import Link
from pipeline.topics import DEVICE_EVENTS

if TYPE_CHECKING:
    from conftest import World

HOST = {"host": "localhost:8080"}
V2 = "/ttn-handler-eu/api/v2/down/app/process"
V3 = "/api/v3/as/applications/app/devices/dev/down"
HOOK = "/api/v3/as/applications/app/webhooks/meters/devices/dev/down"
PUSH = f"{V3}/push"
ONE = {"f_port": 15, "frm_payload": "vu8="}


def body_of(*downlinks: dict[str, Any]) -> bytes:
    return orjson.dumps({"downlinks": downlinks})


async def call(
    world: World,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    **query: str,
) -> Response:
    admitted = world.applications.admit(
        method, path, query, {**HOST, **(headers or {})}, "127.0.0.1"
    )
    assert admitted is not None, "it is an address of a system"
    if isinstance(admitted, Response):
        return admitted
    return await world.applications.handle(admitted, body)


def said(response: Response) -> Any:
    return orjson.loads(response.body)


def ask(world: World, *args: Any, **kwargs: Any) -> Response:
    response: Response = world.run(lambda: call(world, *args, **kwargs))
    return response


def event(world: World) -> dict[str, Any]:
    """Return the one command that was written."""
    (found,) = world.log.events(DEVICE_EVENTS)
    return dict(found)


@pytest.fixture
def owned(world: World) -> World:
    """A world in which the owner takes everything, and lists one waiting downlink."""

    def answer(record: Outgoing, to: ReplyTo) -> list[Reply]:
        asked = orjson.loads(record.value or b"")
        if asked["kind"] == "query":
            waiting = {"id": "d1", "state": "queued", "f_port": 2, "payload": "AQ==",
                       "correlation_ids": ["mine"], "confirmed": True}  # fmt: skip
            ended = {"id": "d0", "state": "sent"}
            links = {"stack": Link(application_id="app", device_id="dev")}
            return [Reply(to.request, body={"downlinks": [waiting, ended]}, links=links)]
        ids = [{"id": f"x.{n}"} for n, _ in enumerate(asked["requests"])]
        return [Reply(to.request, status=200, body={"downlinks": ids})]

    world.log.answer = answer
    return world


def test_v2_payload_raw(owned: World) -> None:
    """The v2 address and body become one command; `replace` where nothing else is said."""
    body = {"dev_id": "dev", "port": 3, "confirmed": True, "payload_raw": "AQI=", "new": 1}
    response = ask(owned, "PUT", V2, orjson.dumps(body), key="")

    assert (response.status, said(response)) == (202, {"id": "x.0"})
    asked = event(owned)
    assert (asked["kind"], asked["device"], asked["replace"]) == ("downlinks", "app:dev", True)
    (request,) = asked["requests"]
    assert (request["payload"], request["f_port"], request["confirmed"]) == ("AQI=", 3, True)
    assert asked["link"] == {"application_id": "app", "device_id": "dev"}


@pytest.mark.parametrize(
    ("schedule", "replace", "queue"),
    [("replace", True, "last"), ("first", False, "first"), ("last", False, "last")],
)
def test_v2_schedule(owned: World, schedule: str, replace: bool, queue: str) -> None:
    """`schedule` is the queue's mode; `payload_fields` go to the encoder."""
    body = {"dev_id": "dev", "schedule": schedule, "payload_fields": {"led": True}}
    assert ask(owned, "POST", V2, orjson.dumps(body)).status == 202

    asked = event(owned)
    assert (asked.get("replace", False), asked["requests"][0]["queue"]) == (replace, queue)
    assert asked["requests"][0]["fields"] == {"led": True}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"dev_id": "dev"}', "no_payload"),
        (b'{"payload_raw": "AQ=="}', "field"),
        (b'{"dev_id": "dev", "payload_raw": "?"}', "field"),
        (b'{"dev_id": "dev", "payload_raw": "AQ==", "schedule": "now"}', "field"),
        (b'{"dev_id": "dev", "payload_raw": "AQ==", "port": 256}', "field"),
        (b'{"dev_id": "dev",}', "json_comma"),
        (b"[]", "json"),
    ],
)
def test_v2_bad_bodies(owned: World, body: bytes, code: str) -> None:
    """A body that cannot be is refused with the field; nothing is written."""
    response = ask(owned, "POST", V2, body)

    assert (response.status, said(response)["error"]["code"]) == (400, code)
    assert owned.log.records == []


def test_v2_key_stands_in_the_address(owned: World) -> None:
    """The key of the address says tenant and right; the wrong one is 401."""
    owned.open = _with_key(owned, "downlink")  # type: ignore[method-assign]
    body = b'{"dev_id": "dev", "payload_raw": "AQ=="}'

    async def work() -> None:
        assert (await call(owned, "POST", V2, body, key=owned.shown)).status == 202  # type: ignore[attr-defined]
        assert (await call(owned, "POST", V2, body, key="fk_no_no")).status == 401
        assert (await call(owned, "POST", V2, body)).status == 401

    owned.run(work)
    assert event(owned)["by"].startswith("key ")


def _with_key(world: World, *rights: str) -> Any:
    opened = world.open

    def open_() -> None:
        opened()
        _, world.shown = world.keys.create("acme", rights)  # type: ignore[attr-defined]

    return open_


def test_v3_push(owned: World) -> None:
    """Several downlinks become one command; the answer is `{}` with the ids in a header."""
    downlinks = (
        {**ONE, "confirmed": True, "priority": "HIGHEST", "correlation_ids": ["mine"]},
        {"decoded_payload": {"bytes": [1]}, "priority": 3, "unknown": 1},
    )
    response = ask(owned, "POST", PUSH, body_of(*downlinks))

    assert (response.status, response.body) == (200, b"{}")
    assert response.headers["x-funicular-downlinks"] == "x.0,x.1"
    asked = event(owned)
    assert (asked["device"], asked.get("replace", False)) == ("app:dev", False)
    first, second = asked["requests"]
    assert (first["payload"], first["priority"], first["correlation_ids"]) == (
        "vu8=",
        "highest",
        ["mine"],
    )
    assert (second["fields"], second["priority"], second["queue"]) == (
        {"bytes": [1]},
        "normal",
        "last",
    )


def test_v3_camel_case(owned: World) -> None:
    """Names may be in camelCase; those in `decodedPayload` are the application's own."""
    body = body_of({"fPort": 7, "decodedPayload": {"isOn": True}, "correlationIds": ["a"]})
    assert ask(owned, "POST", PUSH, body).status == 200

    (request,) = event(owned)["requests"]
    assert (request["f_port"], request["fields"], request["correlation_ids"]) == (
        7,
        {"isOn": True},
        ["a"],
    )


def test_v3_replace(owned: World) -> None:
    """`replace` says so, with nothing too."""
    assert ask(owned, "POST", f"{V3}/replace", b'{"downlinks": []}').status == 200

    asked = event(owned)
    assert (asked["replace"], asked["requests"]) == (True, [])


def test_v3_webhook_variant(owned: World) -> None:
    """A hook is an integration, which is then the one to leave by; its answer has no body."""
    response = ask(owned, "POST", f"{HOOK}/push", body_of(ONE))

    assert (response.status, response.body) == (200, b"")
    asked = event(owned)
    # The integration names its devices by `{device_id}`.
    assert (asked["device"], asked["integration"]) == ("dev", "meters")


def test_v3_unknown_hook(owned: World) -> None:
    """A hook that is no integration is 404, as there."""
    response = ask(owned, "POST", f"{HOOK.replace('meters', 'none')}/push", body_of(ONE))

    assert (response.status, said(response)["details"][0]["name"]) == (404, "webhook_not_found")


def test_v3_list(owned: World) -> None:
    """The queue is what the network server holds, then what waits here; ended ones are not."""
    stack = owned.integration(
        name="stack",
        dialect=TTS_V3,
        options=TtsV3Options(server="https://stack.example", api_key="k"),
        device_template="{application_id}:{device_id}",
    )
    owned.integrations = {"stack": stack}
    held = {"f_port": 9, "frm_payload": "/w==", "priority": "HIGH", "correlation_ids": ["other"]}
    ours = {"f_port": 2, "frm_payload": "AQ==", "correlation_ids": ["funicular:d1"]}
    owned.network_queue = Response(200, orjson.dumps({"downlinks": [held, ours]}))

    listed = said(ask(owned, "GET", V3))["downlinks"]

    assert listed == [
        held,
        {
            "f_port": 2,
            "frm_payload": "AQ==",
            "confirmed": True,
            "priority": "NORMAL",
            "correlation_ids": ["funicular:d1", "mine"],
        },
    ]
    (asked,) = owned.called
    assert asked.url == "https://stack.example/api/v3/as/applications/app/devices/dev/down"
    assert (asked.method, asked.headers["authorization"]) == ("GET", "Bearer k")


@pytest.mark.parametrize(
    ("body", "status", "code", "name"),
    [
        (b'{"downlinks":[{"f_port": 42,}]}', 400, 3, "decode_body"),
        (b"nonsense", 400, 3, "decode_body"),
        (body_of({"frm_payload": "AQ=="}), 400, 3, "no_f_port"),
        (body_of({"f_port": 0, "frm_payload": "AQ=="}), 400, 3, "no_f_port"),
        (body_of({"f_port": 1}), 400, 3, "no_payload"),
        (body_of({**ONE, "f_port": 256}), 400, 3, "validation"),
        (body_of({**ONE, "priority": "URGENT"}), 400, 3, "validation"),
        (body_of({**ONE, "priority": 7}), 400, 3, "validation"),
        (body_of({**ONE, "correlation_ids": ["x" * 101]}), 400, 3, "validation"),
        (body_of({**ONE, "class_b_c": {"gateways": []}}), 400, 3, "validation"),
        (body_of(*[ONE] * 1_001), 400, 3, "validation"),
        (b'{"downlinks": {}}', 400, 3, "validation"),
        (b'{"downlinks": [1]}', 400, 3, "validation"),
    ],
)
def test_v3_errors(owned: World, body: bytes, status: int, code: int, name: str) -> None:
    """Errors have code, message and details as that system writes them; nothing is written."""
    response = ask(owned, "POST", PUSH, body)

    error = said(response)
    (details,) = error["details"]
    assert (response.status, error["code"], details["name"]) == (status, code, name)
    assert details["@type"] == "type.googleapis.com/ttn.lorawan.v3.ErrorDetails"
    assert error["message"].startswith(f"error:{details['namespace']}:{name} (")
    assert owned.log.records == []


def test_trailing_comma_is_told_by_place(owned: World) -> None:
    """The sample of The Things Stack's own page has a comma too many: line and column are said."""
    body = b'{\n  "downlinks": [{\n    "frm_payload": "a,}]",\n    "f_port": 42,}]\n}'
    response = ask(owned, "POST", PUSH, body)

    assert "line 4 column 17 has a comma after the last member" in said(response)["message"]


@pytest.mark.parametrize(
    ("error", "status", "code", "name"),
    [
        ("device_unknown", 404, 5, "device_not_found"),
        ("queue_full", 429, 8, "downlink_queue_capacity"),
        ("payload_length", 400, 3, "application_downlink_too_long"),
        ("idempotency_key_reused", 409, 6, "idempotency_key_reused"),
        ("script_threw", 400, 3, "script_threw"),
    ],
)
def test_v3_owner_refuses(world: World, error: str, status: int, code: int, name: str) -> None:
    """What the device's owner refuses is said by the error that means the same there."""
    body = {"error": {"code": error, "message": "why", "index": 1}}
    world.log.answer = lambda record, to: [Reply(to.request, status=422, body=body)]
    if error == "device_unknown":
        world.log.answer = lambda record, to: [Reply(to.request, status=404, body=body)]

    response = ask(world, "POST", PUSH, body_of(ONE))

    told = said(response)
    assert (response.status, told["code"], told["details"][0]["name"]) == (status, code, name)
    assert told["details"][0]["attributes"] == {"index": 1}


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("POST", "/api/v3/as/applications/app", 404, "route_not_found"),
        ("POST", f"{HOOK}", 404, "route_not_found"),
        ("DELETE", PUSH, 405, "method"),
        ("POST", V3, 405, "method"),
    ],
)
def test_v3_addresses(world: World, method: str, path: str, status: int, name: str) -> None:
    """Other addresses and methods are refused in that system's words."""
    response = ask(world, method, path, b"{}")

    assert (response.status, said(response)["details"][0]["name"]) == (status, name)


def test_v3_keys(owned: World) -> None:
    """A key that may write downlinks pushes and may not read; the wrong one is 401 in its words."""
    owned.open = _with_key(owned, "downlink")  # type: ignore[method-assign]

    async def work() -> None:
        with_key = {"authorization": f"Bearer {owned.shown}"}  # type: ignore[attr-defined]
        assert (await call(owned, "POST", PUSH, body_of(ONE), with_key)).status == 200
        refused = await call(owned, "GET", V3, b"", with_key)
        assert (refused.status, said(refused)["code"]) == (403, 7)
        unknown = await call(owned, "POST", PUSH, body_of(ONE), {"authorization": "Bearer x"})
        assert (unknown.status, said(unknown)["code"]) == (401, 16)

    owned.run(work)


def test_the_only_integration_of_the_dialect_names_devices(owned: World) -> None:
    """Without a process that is ours, the one integration of that system says how its devices are
    called, and is the way to a device that was never heard; but does not force others' devices.
    """
    stack = owned.integration(name="stack", dialect=TTS_V3, device_template="ttn-{device_id}")
    owned.integrations = {"stack": stack}
    ask(owned, "POST", PUSH, body_of(ONE))

    asked = event(owned)
    assert (asked["device"], asked["fallback"]) == ("ttn-dev", "stack")
    assert "integration" not in asked


def test_devices_named_by_something_else_are_named_whole(owned: World) -> None:
    """Where the address does not have what names a device, it gives the whole name."""
    stack = owned.integration(name="stack", dialect=TTS_V3, device_template="{dev_eui}")
    owned.integrations = {"stack": stack}
    ask(owned, "POST", PUSH, body_of(ONE))

    assert event(owned)["device"] == "dev"


def test_idempotency_key_goes_to_the_owner(owned: World) -> None:
    """Key and digest of the request go along: the same request has the same, another another."""
    other = {"f_port": 1, "frm_payload": b64encode(b"x").decode()}

    async def work() -> None:
        for body in (body_of(ONE), body_of(ONE), body_of(other)):
            await call(owned, "POST", PUSH, body, {"idempotency-key": "k"})
        bad = await call(owned, "POST", PUSH, body_of(ONE), {"idempotency-key": "k" * 256})
        assert bad.status == 400

    owned.run(work)
    keys = [one["idempotency"] for one in owned.log.events(DEVICE_EVENTS)]
    assert keys[0] == keys[1]
    assert (keys[0]["key"], keys[0]["request"] == keys[2]["request"]) == ("k", False)


def test_several_tenants_need_a_key(owned: World) -> None:
    """Without keys the only tenant is meant; of several none is guessed."""
    (book,) = owned.rulebooks().values()
    owned.rulebooks = lambda: {"acme": book, "other": book}  # type: ignore[method-assign]

    response = ask(owned, "POST", PUSH, body_of(ONE))

    assert (response.status, said(response)["code"]) == (403, 7)


def test_other_addresses_are_not_theirs(world: World) -> None:
    """An address of neither system is left to others."""

    async def work() -> None:
        for path in ("/x/api/v2/down/app", "/api/v2/down/a/b/c/d", "/api/v1/tenants/acme"):
            assert world.applications.admit("POST", path, {}, HOST, "127.0.0.1") is None

    world.run(work)
