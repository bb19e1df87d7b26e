"""The door and the API through real sockets on loopback."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import uvloop
from structlog.testing import capture_logs

from pipeline.errors import UsageError
from pipeline.ingest.ingest import Ingest
from pipeline.model.reply import Reply
from pipeline.topics import DEVICE_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from conftest import World

UPLINK = b'{"devices": ["d1"]}'
DOOR = "/in/acme/meters"


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both event loops: they differ in when they write, and in what a lost connection looks
    like.
    """

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        # Not `uvloop.run`: from Python 3.12 on that is asyncio's own.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)

    if request.param == "uvloop":
        monkeypatch.setattr(asyncio, "run", run)


class Client:
    """One connection; speaks HTTP by hand, so that it can misbehave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, ingest: Ingest) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", ingest.port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: str = "X-Key: s3cret\r\n"
    ) -> tuple[int, dict[str, str], bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
        await self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def closed(self) -> bool:
        """Wait until the server has closed; whatever it still says is thrown away."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass
        return True

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[tuple[Ingest, Client]]:
    """A started room, and a connection to it."""
    ingest = world.ingest()
    await ingest.start()
    world.instance = ingest.instance
    client = await Client.connect(ingest)
    try:
        yield ingest, client
    finally:
        await client.close()
        await ingest.stop()


def run(world: World, work: Callable[[Ingest, Client], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with opened(world) as (ingest, client):
            async with asyncio.timeout(20):
                return await work(ingest, client)

    return asyncio.run(main())


def error(body: bytes) -> str:
    code: str = orjson.loads(body)["error"]["code"]
    return code


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks, or the operating system, are about to do."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the world has no event for it
            await asyncio.sleep(0.001)


def test_an_uplink_is_taken(world: World) -> None:
    """POST, PUT and GET are taken on one connection; the answer tells no versions."""

    async def work(ingest: Ingest, client: Client) -> None:
        for method in ("POST", "PUT", "GET"):
            status, headers, body = await client.ask(method, f"{DOOR}?a=1", UPLINK)
            assert (status, body) == (202, b"")
            assert headers["server"] == "funicular"
        status, _, _ = await client.ask("POST", "/in/ac%6De/meters", UPLINK)
        assert status == 202
        status, _, _ = await client.ask("POST", f"http://localhost{DOOR}?a=1", UPLINK)
        assert status == 202

    run(world, work)

    assert [record.value for record in world.log.records] == [UPLINK] * 5
    methods = [record.headers["http_method"] for record in world.log.records]
    assert methods == ["POST", "PUT", "GET", "POST", "POST"]
    assert world.metrics.values("funicular_requests_total") == {
        (("integration", "meters"), ("status", "202"), ("tenant", "acme")): 5
    }


def test_who_may_not_enter_gets_one_answer(world: World) -> None:
    """No such integration and a wrong secret have the same 401, to the byte but for the time;
    the body is not waited for.
    """

    async def work(ingest: Ingest, client: Client) -> None:
        answers = []
        for path, headers in [
            (DOOR, "X-Key: wrong\r\n"),
            (DOOR, ""),
            ("/in/acme/nothing", "X-Key: s3cret\r\n"),
            ("/in/nobody/meters", "X-Key: s3cret\r\n"),
        ]:
            status, said, body = await client.ask("POST", path, UPLINK, headers)
            said.pop("date")
            answers.append((status, said, body))
        assert answers[0][0] == 401
        assert answers == [answers[0]] * 4
        await client.send(
            b"POST /in/acme/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert (await client.answer())[0] == 401

    run(world, work)

    assert world.log.records == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", DOOR, 405),
        ("HEAD", DOOR, 405),
        ("POST", "/in/acme", 404),
        ("POST", "/in/acme/meters/more", 404),
        ("GET", "/", 404),
        ("POST", "/healthz", 404),
        ("POST", DOOR + "?" + "&".join(f"f{i}=1" for i in range(101)), 400),
        ("GET", "/api/v1/tenants/acme/devices/d1?" + "&".join("a" * 101), 400),
    ],
)
def test_other_requests_are_refused(world: World, method: str, path: str, status: int) -> None:
    """Other addresses, methods and endless queries are refused in words."""

    async def work(ingest: Ingest, client: Client) -> None:
        if method == "HEAD":
            await client.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 405")
            return
        got, _, body = await client.ask(method, path)
        assert got == status
        assert error(body)

    run(world, work)

    assert world.log.records == []


def test_a_body_may_be_as_long_as_the_limit(world: World) -> None:
    """The integration's limit is to the byte, whether the length is said or not."""

    async def work(ingest: Ingest, client: Client) -> None:
        world.integration(body_bytes_max=len(UPLINK))
        assert (await client.ask("POST", DOOR, UPLINK))[0] == 202
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
        chunk = f"{len(UPLINK):x}\r\n".encode() + UPLINK + b"\r\n0\r\n\r\n"
        await client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk)
        assert (await client.answer())[0] == 202
        status, headers, body = await client.ask("POST", DOOR, UPLINK + b" ")
        assert (status, error(body)) == (413, "body_too_large")
        assert headers["connection"] == "close"
        assert await client.closed()

    run(world, work)

    assert len(world.log.records) == 2


def test_a_never_ending_body_is_cut_off(world: World) -> None:
    """Of a chunked body without end no more is kept than the limit, and the client is told 413
    while it still sends.
    """
    world.integration(body_bytes_max=1_000_000)

    async def work(ingest: Ingest, client: Client) -> None:
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
        await client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
        sent = 0
        tracemalloc.start()

        async def pour() -> None:
            nonlocal sent
            while sent < 50_000_000:
                await client.send(chunk)
                sent += 65_536

        pouring = asyncio.get_running_loop().create_task(pour())
        status, _, body = await client.answer()
        assert (status, error(body)) == (413, "body_too_large")
        await client.closed()
        await asyncio.gather(pouring, return_exceptions=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sent > 1_000_000
        assert peak < 8_000_000

    run(world, work)


def test_a_length_over_the_limit_is_refused_unread(world: World) -> None:
    """Where the client says how long the body is, and asks first, nothing of it is sent."""

    async def work(ingest: Ingest, client: Client) -> None:
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\nExpect: 100-continue\r\n"
        await client.send(f"{head}Content-Length: {len(UPLINK)}\r\n\r\n".encode())
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(UPLINK)
        assert (await client.answer())[0] == 202
        await client.send(f"{head}Content-Length: 1001\r\n\r\n".encode())
        assert (await client.answer())[0] == 413

    run(world, work)


def test_a_bomb_is_refused(world: World) -> None:
    """A packed body counts unpacked; a good one is stored unpacked; other packings are 415."""

    async def work(ingest: Ingest, client: Client) -> None:
        headers = "X-Key: s3cret\r\nContent-Encoding: gzip\r\n"
        packed = gzip.compress(UPLINK)
        assert (await client.ask("POST", DOOR, packed, headers))[0] == 202
        other = headers.replace("gzip", "br")
        assert (await client.ask("POST", DOOR, packed, other))[0] == 415
        assert (await client.ask("POST", DOOR, UPLINK, headers))[0] == 400
        bomb = gzip.compress(bytes(200_000))
        assert len(bomb) < 1_000
        assert (await client.ask("POST", DOOR, bomb, headers))[0] == 413

    run(world, work)

    assert [record.value for record in world.log.records] == [UPLINK]


def test_a_slow_body_is_given_up(world: World) -> None:
    """A body that trickles is answered 408 after the time for all of it."""
    world.settings = replace(world.settings, body_timeout_s=0.05)

    async def work(ingest: Ingest, client: Client) -> None:
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
        await client.send(f"{head}Content-Length: 500\r\n\r\nabc".encode())
        status, _, body = await client.answer()
        assert (status, error(body)) == (408, "body_timeout")
        assert await client.closed()

    run(world, work)

    assert world.log.records == []


def test_slow_headers_are_given_up(world: World) -> None:
    """A connection that never completes its headers, or says nothing at all, is closed."""
    world.settings = replace(world.settings, keepalive_timeout_s=0.05)

    async def work(ingest: Ingest, client: Client) -> None:
        await client.send(b"POST /in/acme/meters HTTP/1.1\r\nHost: x\r\nX-")
        silent = await Client.connect(ingest)
        assert await client.closed()
        assert await silent.closed()
        await silent.close()

    run(world, work)


def test_all_bodies_together_have_a_limit(world: World) -> None:
    """Bodies that are under way are counted over all connections; over the limit it is 503, and
    what is over is given back.
    """
    world.integration(body_bytes_max=100_000)
    world.settings = replace(world.settings, bodies_bytes_max=5_000)

    async def work(ingest: Ingest, client: Client) -> None:
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\nContent-Length: 90000\r\n\r\n"
        await client.send(head.encode() + bytes(4_000))
        await until(lambda: ingest._server._bodies_bytes == 4_000)
        other = await Client.connect(ingest)
        await other.send(head.encode() + bytes(4_000))
        assert (await other.answer())[0] == 503
        await other.close()
        client.abort()
        await until(lambda: ingest._server._bodies_bytes == 0)

    run(world, work)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"POST /in/acme/meters HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 9_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 400),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
    ],
    ids=["rubbish", "tls", "header", "line", "headers", "smuggled"],
)
def test_what_is_no_http_is_refused(world: World, request_bytes: bytes, status: int) -> None:
    """Broken requests are refused without a line in the log, and without versions."""

    async def work(ingest: Ingest, client: Client) -> None:
        await client.send(request_bytes)
        got, headers, body = await client.answer()
        assert got == status
        assert headers["server"] == "funicular"
        assert b"aiohttp" not in body

    with capture_logs() as logs:
        run(world, work)

    assert {line["event"] for line in logs} == {"the door is open", "the door is closed"}


def test_a_broken_chunk_is_refused(world: World) -> None:
    """A chunked body that breaks its own rules is never stored: 400 where it came in one piece,
    408 where its beginning was being read already (aiohttp does not tell the reader).
    """
    world.settings = replace(world.settings, body_timeout_s=0.05)
    head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
    begin = f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n".encode()

    async def work(ingest: Ingest, client: Client) -> None:
        await client.send(begin + b"zz\r\n")
        assert (await client.answer())[0] == 400
        other = await Client.connect(ingest)
        await other.send(begin)
        await until(lambda: ingest._server._bodies_bytes == 5)
        await other.send(b"zz\r\n")
        assert (await other.answer())[0] == 408
        assert await other.closed()
        await other.close()

    run(world, work)

    assert world.log.records == []


def test_one_connection_too_many_is_told(world: World) -> None:
    """Over the limit a connection gets 503 and is closed; when one ends there is room again."""
    world.settings = replace(world.settings, connections_max=1)

    async def work(ingest: Ingest, client: Client) -> None:
        assert (await client.ask("GET", "/healthz"))[0] == 200
        other = await Client.connect(ingest)
        status, headers, body = await other.answer()
        assert (status, error(body)) == (503, "busy")
        assert headers["retry-after"] == "5"
        assert await other.closed()
        await other.close()
        await client.close()
        await until(lambda: not ingest._server._listener.connections)
        again = await Client.connect(ingest)
        assert (await again.ask("GET", "/healthz"))[0] == 200
        await again.close()

    run(world, work)


def test_health_readiness_and_metrics(world: World) -> None:
    """Alive is always 200; ready says what is missing, and without it uplinks and commands are
    503; metrics are text.
    """

    async def work(ingest: Ingest, client: Client) -> None:
        assert (await client.ask("GET", "/healthz"))[0] == 200
        assert (await client.ask("GET", "/readyz"))[0] == 200
        world.missing = "the engine stands"
        status, _, body = await client.ask("GET", "/readyz")
        assert (status, body) == (503, b"the engine stands\n")
        assert (await client.ask("GET", "/healthz"))[0] == 200
        assert (await client.ask("POST", DOOR, UPLINK))[0] == 503
        assert (await client.ask("GET", "/api/v1/tenants/acme/devices/d1"))[0] == 503
        world.missing = None
        assert (await client.ask("POST", DOOR, UPLINK))[0] == 202
        status, headers, body = await client.ask("GET", "/metrics")
        assert (status, headers["content-type"][:10]) == (200, "text/plain")
        line = 'funicular_requests_total{integration="meters",status="202",tenant="acme"} 1'
        assert line in body.decode().splitlines()
        forwarded = "X-Forwarded-For: 10.0.0.7\r\n"
        assert (await client.ask("GET", "/metrics", b"", forwarded))[0] == 403

    run(world, work)


def test_a_command_through_the_socket(world: World) -> None:
    """The API answers with its owner's reply; a foreign host name is refused while there are no
    keys; a body over the limit is 413.
    """
    world.log.answer = lambda record, to: [Reply(to.request, body={"target": 21})]
    path = "/api/v1/tenants/acme/devices/app:d%2F1/attributes/shared"

    async def work(ingest: Ingest, client: Client) -> None:
        status, headers, body = await client.ask("PATCH", path, b'{"target": 21}', "")
        assert (status, body) == (200, b'{"target":21}')
        assert headers["content-type"] == "application/json"
        await client.send(f"GET {path} HTTP/1.1\r\nHost: rebound.example\r\n\r\n".encode())
        assert (await client.answer())[0] == 403
        big = bytes(world.settings.api_body_bytes_max + 1)
        assert (await client.ask("PATCH", path, big, ""))[0] == 413

    run(world, work)

    assert [event["device"] for event in world.log.events(DEVICE_EVENTS)] == ["app:d/1"]


def test_our_own_fault_is_500_and_logged(world: World) -> None:
    """A bug in a dialect ends one request, with a trace in the log and none in the answer."""

    class Broken(type(world.integrations["meters"].dialect)):  # type: ignore[misc]
        def read(self, *args: Any) -> Any:
            raise KeyError("secret thing")

    async def work(ingest: Ingest, client: Client) -> None:
        sound = world.integrations["meters"].dialect
        world.integration(dialect=Broken())
        status, _, body = await client.ask("POST", DOOR, UPLINK)
        assert (status, error(body)) == (500, "internal")
        assert b"secret" not in body
        assert await client.closed()
        world.integration(dialect=sound)
        other = await Client.connect(ingest)
        assert (await other.ask("POST", DOOR, UPLINK))[0] == 202
        await other.close()

    with capture_logs() as logs:
        run(world, work)

    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["path"], type(line["exc_info"])) == (DOOR, KeyError)


def test_a_thousand_wait_and_are_answered(world: World) -> None:
    """1,000 requests wait at one time, are answered each with its own downlink, and all are
    reported as sent.
    """
    world.integration(synchronous=True, answer_timeout_s=15.0)
    waiting: list[tuple[str, str]] = []

    def collect(record: Any, to: Any) -> list[Reply]:
        waiting.append((to.request, record.key.partition("/")[2]))
        return []

    world.log.answer = collect

    async def one(ingest: Ingest, device: str) -> None:
        client = await Client.connect(ingest)
        status, _, body = await client.ask("POST", DOOR, b'{"devices": ["%s"]}' % device.encode())
        assert status == 200
        assert orjson.loads(body) == {device: f"down-{device}"}
        await client.close()

    async def work(ingest: Ingest, client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(1_000):
                group.create_task(one(ingest, f"d{i}"))
            await until(lambda: len(waiting) == 1_000)
            assert len(ingest._waiting) == 1_000
            for request, device in reversed(waiting):
                reply = Reply(request, device=device, downlink_id=f"down-{device}")
                world.log.reply(reply, ingest.instance)

    run(world, work)

    reports = [event["report"] for event in world.log.events(DEVICE_EVENTS)]
    assert {report["state"] for report in reports} == {"sent"}
    assert len({report["downlink_id"] for report in reports}) == 1_000


def test_a_client_that_goes_while_it_waits_has_no_downlink(world: World) -> None:
    """Its answer is not written; the downlink goes back to the queue, and surely did not
    arrive.
    """
    world.integration(synchronous=True)

    async def work(ingest: Ingest, client: Client) -> None:
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
        await client.send(f"{head}Content-Length: {len(UPLINK)}\r\n\r\n".encode() + UPLINK)
        await until(lambda: len(ingest._waiting) == 1)
        client.abort()
        connection = ingest._server._listener.connections[0]
        await until(lambda: connection.transport is None)
        world.log.reply(Reply("id1", device="d1", downlink_id="down1"), ingest.instance)
        await until(lambda: world.log.events(DEVICE_EVENTS))

    run(world, work)

    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"] == {"state": "queued", "downlink_id": "down1", "reason": "too_late"}


def test_a_client_that_closes_once_it_has_read_has_its_downlink(world: World) -> None:
    """A client that reads the answer and closes at once, as `curl` does, was answered."""
    world.integration(synchronous=True)
    world.log.answer = lambda record, to: [
        Reply(to.request, device="d1", downlink_id=f"down-{to.request}")
    ]
    head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
    asked = f"{head}Content-Length: {len(UPLINK)}\r\n\r\n".encode() + UPLINK

    def ask(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(asked)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")

    async def work(ingest: Ingest, client: Client) -> None:
        for _ in range(100):
            await asyncio.to_thread(ask, ingest.port)
        await until(lambda: len(world.log.events(DEVICE_EVENTS)) == 100)

    run(world, work)

    reports = [event["report"] for event in world.log.events(DEVICE_EVENTS)]
    assert [report for report in reports if report["state"] != "sent"] == []


def test_a_client_that_does_not_read_has_no_downlink(world: World) -> None:
    """Where the answer cannot be handed to the operating system in time, the downlink goes back
    as possibly delivered, and the connection is cut.
    """
    world.integration(synchronous=True)
    world.settings = replace(world.settings, answer_write_timeout_s=0.1)

    class Verbose(type(world.integrations["meters"].dialect)):  # type: ignore[misc]
        def answer(self, replies: Any, request: Any, options: Any) -> Any:
            said = super().answer(replies, request, options)
            return type(said)(said.status, bytes(30_000_000), said.headers)

    world.integration(dialect=Verbose())
    world.log.answer = lambda record, to: [Reply(to.request, device="d1", downlink_id="down1")]

    async def work(ingest: Ingest, client: Client) -> None:
        client.writer.transport.pause_reading()
        head = f"POST {DOOR} HTTP/1.1\r\nHost: x\r\nX-Key: s3cret\r\n"
        await client.send(f"{head}Content-Length: {len(UPLINK)}\r\n\r\n".encode() + UPLINK)
        await until(lambda: world.log.events(DEVICE_EVENTS))

    run(world, work)

    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"]["reason"] == "not_answered"


def test_stopping_answers_those_who_wait(world: World) -> None:
    """A stop ends every wait with what is there, lets the answers out, and stores the reports;
    the reader is closed.
    """
    world.integration(synchronous=True, answer_timeout_s=60.0)
    world.log.answer = lambda record, to: [
        Reply(to.request, device="d1", part=1, of=2, downlink_id="down1")
    ]

    async def main() -> None:
        ingest = world.ingest()
        await ingest.start()
        client, idle = await Client.connect(ingest), await Client.connect(ingest)
        asking = asyncio.get_running_loop().create_task(client.ask("POST", DOOR, UPLINK))
        await until(lambda: world.log.reader.committed or ingest._replies._offset)
        async with asyncio.timeout(5):
            await ingest.stop()
        status, _, body = await asking
        assert (status, orjson.loads(body)) == (200, {"d1": "down1"})
        assert await idle.closed()
        with pytest.raises(ConnectionError):
            await Client.connect(ingest)
        await client.close()
        await idle.close()

    asyncio.run(main())

    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"] == {"state": "sent", "downlink_id": "down1"}
    assert world.log.reader.closed


def test_a_port_in_use_is_said(world: World) -> None:
    """A second server on the port does not start, and says so in a sentence; likewise an
    address that is not this machine's.
    """

    async def main(host: str, port: int) -> None:
        world.settings = replace(world.settings, host=host, port=port)
        ingest = world.ingest()
        try:
            await ingest.start()
        finally:
            await ingest.stop()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is in use"):
            asyncio.run(main("127.0.0.1", port))
    with pytest.raises(UsageError, match="no address of this machine"):
        asyncio.run(main("192.0.2.1", 0))


def test_the_address_is_where_it_listens(world: World) -> None:
    """With port 0 the address has the port that was free."""

    async def work(ingest: Ingest, client: Client) -> None:
        assert ingest.address == f"http://127.0.0.1:{ingest.port}"
        assert ingest.port > 0

    run(world, work)


def test_a_part_that_dies_is_told(world: World) -> None:
    """When a bug ends the reader of replies, the room is not ready and `failed` says why."""

    async def main() -> None:
        ingest = world.ingest()
        await ingest.start()
        world.log.reader.queue.put_nowait(ValueError("bug"))
        assert ingest.failed is not None
        with pytest.raises(ValueError, match="bug"):
            await ingest.failed
        assert ingest.unready() is not None
        await ingest.stop()

    with capture_logs() as logs:
        asyncio.run(main())

    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "a part of the door died"
    ]
