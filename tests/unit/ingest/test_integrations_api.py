"""The API's view of integrations: who may see it, and what there is to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pipeline.ingest.integrations_api import IntegrationsApi

if TYPE_CHECKING:
    from conftest import World

    from pipeline.model.http import Response

PATH = "/api/v1/tenants/acme/integrations"
SECRET = {"x-key": "s3cret"}


def asked(world: World, method: str = "GET", path: str = PATH, peer: str = "127.0.0.1",
          ) -> Response | None:  # fmt: skip
    api = IntegrationsApi(
        world.access, lambda tenant: [s for s in world.door.status() if s.tenant == tenant]
    )
    return api.answer(method, path, {}, peer)


def test_an_integration_that_is_posted_to_is_open(world: World) -> None:
    """It shows what was taken, what was refused, and when the last message came."""

    async def work() -> None:
        gate = world.door.enter("acme", "meters", SECRET, {})
        world.door.count(gate, 202)
        world.door.count(gate, 400)
        answer = asked(world)
        assert answer is not None
        (shown,) = orjson.loads(answer.body)["integrations"]
        assert (shown["integration"], shown["state"], shown["transport"]) == (
            "meters",
            "open",
            "http",
        )
        assert (shown["messages"], shown["refused"]) == (1, 1)
        assert shown["last_message_ms"] == world.now_ms

    world.run(work)


def test_others_addresses_methods_and_people(world: World) -> None:
    """Another address is another's to answer; only GET, and only who may."""

    async def work() -> None:
        assert asked(world, path="/api/v1/tenants/acme/devices") is None
        wrong = asked(world, "POST")
        assert wrong is not None
        assert wrong.status == 405
        stranger = asked(world, peer="192.0.2.1")
        assert stranger is not None
        assert stranger.status in (401, 403)

    world.run(work)


def test_nobody_posts_to_an_integration_with_a_connection(world: World) -> None:
    """An integration over MQTT has no door: it looks like one that is not there."""

    async def work() -> None:
        world.integration(connection=object(), transport="mqtt")
        assert world.door.enter("acme", "meters", SECRET, {}) is None
        assert world.door.status() == []

    world.run(work)
