"""`funicular send` to an integration that asks: the sample is given at the address that it asks, to
the real source.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import orjson
import pytest

from pipeline.ingest.source import Outside
from pipeline.model.http import Request
from pipeline.rehearse.senders import poll
from pipeline.rehearse.senders.sender import NotSentError, sender_of
from pipeline.rulebook.book import Integration
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.asking import Fetcher
from pipeline.sink.settings import SinkSettings
from tests.real.servers import free_port
from tests.real.source_work import NOW_MS, HeldLog, Leases, Process, integration

READINGS: dict[str, Any] = {
    "query": {"after": "${cursor}"},
    "items": "body.data.readings",
    "cursor": "items[size(items) - 1].n",
    "next": "body.next",
}


def polled(
    dialect: str = "http", options: dict[str, Any] | None = None, **connection: Any
) -> Integration:
    return integration(dialect, "poll", options, **{"interval": 1, "timeout": 1, **connection})


def sample_of(made: Integration, device: str = "d1") -> Request:
    dialect: Any = made.dialect
    found: Request = dialect.sample(device, 7, b"\x01\x02", NOW_MS)
    return found


async def given(made: Integration) -> tuple[HeldLog, Any]:
    """Send two samples while a worker asks; return its log, and its cursor."""
    log = HeldLog()
    leases = Leases(log)
    fetching = partial(Fetcher, SinkSettings(allowed_networks=LOOPBACK))
    process = Process(log, made, outside=Outside(leases, fetching))
    await process.sources.refresh()
    try:
        for number in range(2):
            device = f"d{number}"
            shown = await sender_of("poll")(made, device, sample_of(made, device))
            assert b"127.0.0.1" in shown
            assert len(log.records) == number + 1
    finally:
        await process.sources.stop()
    return log, leases.cursors[f"acme/{made.name}"]["cursor"]


@pytest.mark.parametrize(
    ("more", "numeric"),
    [
        (READINGS, True),
        ({**READINGS, "cursor": "items[0].meta.time"}, False),
        ({**READINGS, "cursor": "body.after", "start": 5}, True),
        ({"lines": True, "cursor": "items[size(items)-1].n", "start": "a"}, False),
        ({"method": "POST", "body": {"since": "${cursor}"}, "cursor": "items[0].time"}, False),
    ],
    ids=["path", "time", "body", "lines", "post"],
)
async def test_an_api_gives_the_sample(more: dict[str, Any], *, numeric: bool) -> None:
    """The integration's own `items`, `cursor` and `next` find the sample, of its device; the send
    returns once it is on disk, and the cursor has moved.
    """
    url = f"http://127.0.0.1:{free_port()}/v1/readings"
    log, cursor = await given(polled("http", {"device_field": "meta.id"}, url=url, **more))
    assert [record.key for record in log.records] == ["acme/d0", "acme/d1"]
    assert orjson.loads(log.bodies()[1])["counter"] == 7
    assert isinstance(cursor, int if numeric else str)


@pytest.mark.parametrize("dialect", ["tts_v3", "ttn_v2"])
async def test_a_storage_gives_the_sample(dialect: str) -> None:
    """A network server's storage says the sample as it keeps it, and the dialect reads it back."""
    storage = f"http://127.0.0.1:{free_port()}"
    made = polled(dialect, {"application_id": "sample-app"}, storage=storage, key="k")
    log, _ = await given(made)
    assert [record.key for record in log.records] == [f"acme/sample-app:d{n}" for n in range(2)]


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ({"url": "https://api.example.com/x"}, "this machine alone. Write `url:"),
        ({"url": "http://192.0.2.1/x"}, "is the platform's"),
        ({"url": "https://127.0.0.1/x"}, "is the platform's"),
        ({"url": "http://127.0.0.1:1/x", "items": "[body]"}, "is more than a path"),
        ({"url": "http://127.0.0.1:1/x", "cursor": "items[0].a.b + items[0].c"}, "cannot be made"),
    ],
)
async def test_what_cannot_be_played_is_said(connection: dict[str, Any], says: str) -> None:
    """An address that is not ours, and an answer that is more than paths: what to do is said."""
    made = polled(**connection)
    with pytest.raises(NotSentError) as caught:
        await poll.serve(made, "d1", sample_of(made))
    assert says in str(caught.value)


async def test_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker asks, or it asks for something else, the send ends and says so; so it does
    where the port is another's.
    """
    monkeypatch.setattr(poll, "WAIT_S", -1.5)
    port = free_port()
    made = polled(url=f"http://127.0.0.1:{port}/x")
    with pytest.raises(NotSentError, match="nobody asked within"):
        await asyncio.wait_for(poll.serve(made, "d1", sample_of(made)), 10)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(NotSentError, match="nobody can listen at"):
            await poll.serve(made, "d1", sample_of(made))


async def test_another_place_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for another path gets 404, and is told of."""
    monkeypatch.setattr(poll, "WAIT_S", 0.0)
    port = free_port()
    made = polled(url=f"http://127.0.0.1:{port}/x")
    sending = asyncio.ensure_future(poll.serve(made, "d1", sample_of(made)))
    status = b""

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        writer.close()
        return said

    async with asyncio.timeout(10):
        while not status:
            await asyncio.sleep(0.02)
            try:
                status = await ask()
            except ConnectionError:
                continue
    assert b" 404 " in status
    with pytest.raises(NotSentError, match="somebody asked for /y"):
        await sending
