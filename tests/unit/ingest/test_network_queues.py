"""The network servers' own queues: what is shown of each, and which of it is ours."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.errors import RetryableError
from pipeline.ingest.network_queues import NetworkQueues, Shown
from pipeline.integrations.chirpstack import DIALECT as CHIRPSTACK
from pipeline.integrations.chirpstack import ChirpStackOptions
from pipeline.model.http import Call, Response
from pipeline.model.uplink import Link

if TYPE_CHECKING:
    from conftest import World

LINK = Link(device_id="0101010101010101")
API = ChirpStackOptions.model_validate({"server": "https://cs.example", "api_key": "key"})
HELD = {
    "result": [{"id": "a", "fPort": 1, "data": "AQ=="}, {"id": "b", "fPort": 1, "data": "Ag=="}]
}


def chirpstack(world: World) -> None:
    one = replace(world.integrations["meters"], name="barn", dialect=CHIRPSTACK, options=API)
    world.integrations["barn"] = one


def show(world: World, downlinks: Any = (), *names: str) -> dict[str, Shown]:
    queues = NetworkQueues(world.rulebooks, world.outward)
    links = dict.fromkeys(names or ("barn",), LINK)
    return asyncio.run(queues.show("acme", links, downlinks))


def test_ours_are_known_by_the_network_servers_name(world: World) -> None:
    """An item that is called as one of our downlinks is that one: the newest of that name, of this
    integration.
    """
    chirpstack(world)
    world.network_queue = Response(200, orjson.dumps(HELD))
    other = {"id": "d0", "integration": "field", "detail": {"reference": "a"}}
    new = {"id": "d2", "integration": "barn", "detail": {"reference": "b"}}
    old = {"id": "d1", "integration": "barn", "detail": {"reference": "b"}}

    shown = show(world, [other, {"id": "d3", "integration": "barn"}, new, old])

    assert [item.ours for item in shown["barn"].downlinks] == ["", "d2"]
    (asked,) = world.called
    assert (asked.method, asked.url) == (
        "GET", "https://cs.example/api/devices/0101010101010101/queue"
    )  # fmt: skip


def test_one_that_is_not_shown_says_why(world: World) -> None:
    """Each network server by itself: an unknown integration, a dialect without a queue, an answer
    that is none, no answer.
    """
    chirpstack(world)
    world.network_queue = Response(401, b"{}")
    shown = show(world, (), "barn", "meters", "gone")

    assert shown["barn"].error == "the network server answered 401"
    assert shown["meters"].error == "fake does not show a device's queue"
    assert shown["gone"].error == "the rules have no such integration any more"

    async def silent(_: Call) -> Response:
        raise RetryableError("it does not answer", code="connect")

    queues = NetworkQueues(world.rulebooks, silent)
    asked = asyncio.run(queues.show("acme", {"barn": LINK}))
    assert asked["barn"].error == "it does not answer"
    asked = asyncio.run(NetworkQueues(world.rulebooks, None).show("acme", {"barn": LINK}))
    assert asked["barn"].error == "this process makes no requests to network servers"
