"""A service that a chain test plays, held to the real sink and a real web server."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.model.delivery import Delivery
from pipeline.model.record import Record
from pipeline.rehearse.services import ServiceAnswer, Services
from pipeline.rulebook.book import SinkEntry
from pipeline.sink.endings import Ended, How, sink_ending
from pipeline.sink.http import HttpConfig, HttpSink
from pipeline.sink.transport import Result, Verdict
from tests.unit.sink.fakes import START_MS, TENANT, World, answers, context, delivery, run, serving

CALL = delivery(1, awaited=True, expires_at_ms=START_MS + 60_000)


async def really(status: int, body: bytes, path: str) -> Result:
    """What the real sink makes of a real server's answer."""
    async with serving(World()) as server:
        server.always["/in"] = server.always["/dev1"] = answers(status, body)
        sink = HttpSink(HttpConfig(url=server.url + path), context())
        await sink.open()
        try:
            (result,) = await sink.deliver([CALL])
        finally:
            await sink.close()
    return result


def played(status: int, body: bytes, path: str) -> tuple[Services, Record]:
    """The services of a rehearsal, asked the same; nothing is done yet."""
    config = HttpConfig(url="http://service.example" + path)
    services = Services({"app": SinkEntry(TENANT, "app", "http", config)})
    services.answers["app"] = [ServiceAnswer(status, body)]
    record = Record("t", 0, 0, START_MS, "k", msgspec.json.encode(CALL), {})
    services.ask("app", record, START_MS)
    return services, record


@pytest.mark.parametrize("path", ["/in", "/{device}"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((200, b'{"owner": "you"}'), (200, b"not JSON"), (201, b""), (204, b"")),
        *((302, b""), (400, b"no"), (404, b'{"why": 1}'), (408, b""), (410, b""), (422, b"\xff")),
        *((429, b""), (500, b"oh"), (503, b"")),
    ],
)
def test_what_comes_of_an_answer_is_the_same(status: int, body: bytes, path: str) -> None:
    """The chain gets the very event that the real sink gives it, or waits as it would there."""
    result = run(really(status, body, path))
    services, record = played(status, body, path)

    news = services.work(START_MS)

    (call,) = services.calls
    if result.verdict is Verdict.POSTPONED:
        assert (news, call.ended, call.error) == ([], None, result.message)
        assert (call.uncertain, call.due_ms is None) == (result.uncertain, result.stop)
        return
    how = How.DELIVERED if result.verdict is Verdict.DELIVERED else How.REFUSED
    assert news == sink_ending(record, CALL, Ended(how, result), START_MS)


def test_what_nobody_waits_for_is_not_answered() -> None:
    """A delivery of `send` stays a delivery, also where its body looks like a call."""
    services, record = played(200, b"", "/in")
    plain = Delivery("d2", TENANT, "dev1", "app", START_MS, {"awaited": True})

    services.ask("app", msgspec.structs.replace(record, value=msgspec.json.encode(plain)), START_MS)

    assert [call.delivery.id for call in services.calls] == ["d1"]
