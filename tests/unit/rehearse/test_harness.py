"""The whole flow in memory: a request at a door, a command at the API, time that passes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.errors import RetryableError
from pipeline.model.http import Request
from pipeline.rehearse.harness import START_MS, Rehearsal, Stages
from pipeline.topics import DEVICE_EVENTS, UPLINK_RECEIVED


@pytest.fixture
def rehearsal(book: Any, scripts: Any) -> Rehearsal:
    return Rehearsal(Stages(book, scripts))


def sample(rehearsal: Rehearsal, name: str, payload: bytes, counter: int = 1) -> Request:
    dialect = rehearsal.book.integrations[name].dialect
    return dialect.sample("1A2B", counter, payload, rehearsal.now_ms())


async def downlinks(rehearsal: Rehearsal, device: str) -> list[Any]:
    answer = await rehearsal.ask("GET", device, "downlinks")
    found: list[Any] = orjson.loads(answer.body)["downlinks"]
    return found


async def test_an_uplink_goes_all_the_way(rehearsal: Rehearsal) -> None:
    """From the door to the request that the network server gets, and the news of it."""
    answer = await rehearsal.enter("stack", sample(rehearsal, "stack", b"\x1e"))

    assert answer.status == 202
    (handed,) = rehearsal.handed
    assert handed.call is not None
    assert handed.call.url.startswith("http://stack.example/api/v3/as/applications/sample-app/")
    assert orjson.loads(handed.call.body)["downlinks"][0]["frm_payload"] == "AQ=="
    (downlink,) = await downlinks(rehearsal, "sample-app:1A2B")
    assert downlink["state"] == "sent"
    assert [line.message for line in rehearsal.lines] == ["told sample-app:1A2B"]
    topics = [record.topic for record in rehearsal.journal]
    assert topics[:2] == [UPLINK_RECEIVED, DEVICE_EVENTS]
    assert "delivery.acme.out" in topics


async def test_a_synchronous_request_is_answered_with_the_downlink(rehearsal: Rehearsal) -> None:
    """The answer carries the downlink that this very uplink caused; then it is sent."""
    answer = await rehearsal.enter("fox", sample(rehearsal, "fox", b"\x1e"))

    assert orjson.loads(answer.body) == {"1A2B": {"downlinkData": "0100000000000000"}}
    (downlink,) = await downlinks(rehearsal, "1A2B")
    assert downlink["state"] == "sent"


async def test_an_answer_that_does_not_arrive(rehearsal: Rehearsal) -> None:
    """The door tells that nobody took it, so the downlink waits again, possibly delivered."""
    await rehearsal.enter("fox", sample(rehearsal, "fox", b"\x1e"), outcome="not_answered")

    (downlink,) = await downlinks(rehearsal, "1A2B")
    assert (downlink["state"], downlink["possibly_delivered"]) == ("queued", True)


async def test_a_synchronous_request_that_nothing_is_for_does_not_hang(
    rehearsal: Rehearsal, scripts: Any
) -> None:
    """No real time passes, also where no reply comes."""
    scripts.functions["page"] = lambda *_: []

    answer = await rehearsal.enter("web", Request(body=b"{}"))

    assert answer.status in (202, 204)
    assert rehearsal.now_ms() == START_MS


async def test_the_secret_is_needed(rehearsal: Rehearsal) -> None:
    """Without it, and for an integration that is not there, the door says the same."""
    request = sample(rehearsal, "lora", b"\x1e")

    wrong = await rehearsal.enter("lora", request, with_secret=False)
    nowhere = await rehearsal.enter("lorra", request)

    assert wrong == nowhere
    assert wrong.status == 401
    assert rehearsal.journal == []


async def test_what_the_network_server_does(rehearsal: Rehearsal) -> None:
    """It may refuse; while it is away downlinks wait, and leave when it is back."""
    rehearsal.mood = "refuses"
    await rehearsal.enter("stack", sample(rehearsal, "stack", b"\x1e"))
    rehearsal.mood = "is_away"
    body = orjson.dumps({"payload": "AQ==", "f_port": 1})
    await rehearsal.ask("POST", "sample-app:1A2B", "downlinks", body=body)
    states = [each["state"] for each in await downlinks(rehearsal, "sample-app:1A2B")]
    assert sorted(states) == ["failed", "sending"]

    rehearsal.mood = "takes"
    await rehearsal.append(())

    states = [each["state"] for each in await downlinks(rehearsal, "sample-app:1A2B")]
    assert sorted(states) == ["failed", "sent"]


async def test_time_passes_when_it_is_told_to(rehearsal: Rehearsal) -> None:
    """Timers fire at their own time: what waited for an hour has expired."""
    await rehearsal.ask("PATCH", "1A2B", "attributes/shared", body=b'{"cooling": true}')
    await rehearsal.enter("fox", sample(rehearsal, "fox", b"\x05"))
    await rehearsal.ask("PATCH", "1A2B", "attributes/shared", body=b'{"cooling": false}')
    await rehearsal.wait(3_599_999)
    (downlink,) = await downlinks(rehearsal, "1A2B")
    assert downlink["state"] == "queued"

    await rehearsal.wait(1)

    (downlink,) = await downlinks(rehearsal, "1A2B")
    assert (downlink["state"], downlink["changed_ms"]) == ("expired", START_MS + 3_600_000)


async def test_without_chains_state_is_kept_and_nothing_follows(rehearsal: Rehearsal) -> None:
    """What is given before a test causes nothing; afterwards chains run again."""
    with rehearsal.without_chains():
        await rehearsal.enter("fox", sample(rehearsal, "fox", b"\x05"))
        await rehearsal.ask("PATCH", "1A2B", "attributes/shared", body=b'{"cooling": true}')
    assert await downlinks(rehearsal, "1A2B") == []

    await rehearsal.ask("PATCH", "1A2B", "attributes/shared", body=b'{"cooling": false}')

    assert len(await downlinks(rehearsal, "1A2B")) == 1


async def test_rehearsals_share_nothing_but_compiled_chains(book: Any, scripts: Any) -> None:
    """A second one on the same stages knows nothing of the first."""
    stages = Stages(book, scripts)
    first = Rehearsal(stages)
    await first.enter("fox", sample(first, "fox", b"\x1e"))

    second = Rehearsal(stages)

    assert (await second.ask("GET", "1A2B")).status == 404
    assert second.journal[0].topic == DEVICE_EVENTS
    assert second.lines == []
    assert len(first.lines) == 1


async def test_an_engine_that_does_not_start_is_no_answer(
    rehearsal: Rehearsal, scripts: Any
) -> None:
    """It is not taken for the door's 503: whoever rehearses is told."""

    def sensor(operation: str, argument: Any) -> Any:
        raise RetryableError("the javascript engine did not start")

    scripts.functions["sensor"] = sensor

    with pytest.raises(RetryableError, match="did not start"):
        await rehearsal.enter("lora", sample(rehearsal, "lora", b"\x05"))


async def test_a_bad_address_of_the_api(rehearsal: Rehearsal) -> None:
    """What the API refuses before it reads a body is an answer like any other."""
    assert (await rehearsal.ask("PUT", "1A2B", "downlinks")).status == 405
