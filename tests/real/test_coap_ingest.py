"""Integrations over CoAP, against aiocoap's and libcoap's clients, and datagrams that are none."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiocoap
import orjson
import pytest
from aiocoap import Code, Message
from aiocoap.numbers import ContentFormat

from pipeline.errors import StorageFullError
from pipeline.model.http import Request
from pipeline.model.record import REPLY_TO
from pipeline.model.reply import Reply, read_reply_to
from pipeline.rehearse.senders.coap import send
from tests.real.listening import BY_QUERY, WITHIN_S, Worker, integration, listening, until
from tests.real.servers import free_port, program

JSON = ContentFormat.JSON
BINARY = ContentFormat.OCTETSTREAM


@asynccontextmanager
async def client() -> AsyncIterator[aiocoap.Context]:
    context = await aiocoap.Context.create_client_context(transports=["udp6"])
    try:
        yield context
    finally:
        await context.shutdown()


async def ask(context: aiocoap.Context, uri: str, payload: bytes = b"", **more: Any) -> Message:
    code = more.pop("code", Code.POST)
    async with asyncio.timeout(WITHIN_S):
        message = Message(code=code, uri=uri, payload=payload, **more)
        return await context.request(message).response


def meters(options: dict[str, Any] | None = None, **given: Any) -> Worker:
    return Worker(integration("coap", BY_QUERY if options is None else options, **given))


class Stages:
    """Answers waiting requests as the stages would, with what waits for the device."""

    def __init__(self, worker: Worker, *waiting: bytes) -> None:
        self._worker = worker
        self._waiting = list(waiting)
        self._answered = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.005)
            records = self._worker.log.uplinks()
            for record in records[self._answered :]:
                way = read_reply_to(record.headers.get(REPLY_TO))
                self._answered += 1
                if way is None:
                    continue
                payload = self._waiting.pop(0) if self._waiting else None
                if payload is None:
                    self._worker.waiting.deliver(Reply(way.request, device="d1"))
                else:
                    self._worker.send(way, f"l{self._answered}", payload)


@asynccontextmanager
async def answering(worker: Worker, *waiting: bytes) -> AsyncIterator[None]:
    task = asyncio.ensure_future(Stages(worker, *waiting).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, "meters/d1"),
        ({"token": "t"}, "meters/d1/t"),
        ({"token": "t"}, "meters/d1?token=t"),
        ({"tokens": {"d1": "own"}}, "meters?device=d1&token=own"),
        ({"path": "a/b", "token": "t"}, "a/b/d1/t"),
    ],
)
async def test_a_message_arrives(given: dict[str, Any], path: str) -> None:
    """A POST becomes a record of its device, without its token; it is answered 2.04."""
    worker = meters(**given)
    async with listening(worker) as port, answering(worker), client() as device:
        answer = await ask(device, f"coap://127.0.0.1:{port}/{path}", b"\x01\x02")
    (record,) = worker.log.uplinks()
    assert (answer.code, answer.payload) == (Code.CHANGED, b"")
    assert (record.key, record.value) == ("acme/d1", b"\x01\x02")
    query = orjson.loads(record.headers["http_query"])
    assert set(query) == {"device", "peer"}


async def test_what_a_message_brings_goes_along() -> None:
    """Its content format is the content type, further parameters are the query's."""
    worker = meters({"device_field": "id"})
    async with listening(worker) as port, answering(worker), client() as device:
        uri = f"coap://127.0.0.1:{port}/meters?site=north"
        await ask(device, uri, b'{"id":"d1"}', content_format=JSON)
    (record,) = worker.log.uplinks()
    assert record.key == "acme/d1"
    assert record.headers["content-type"] == "application/json"
    assert orjson.loads(record.headers["http_query"])["site"] == "north"


async def test_the_answer_carries_the_downlink() -> None:
    """What waits for the device is in the answer, as the dialect says it, and counts as sent."""
    worker = meters()
    async with listening(worker) as port, answering(worker, b"\x0f"), client() as device:
        uri = f"coap://127.0.0.1:{port}/meters/d1"
        answer = await ask(device, uri, b"\x01", content_format=BINARY)
        assert (answer.code, answer.payload) == (Code.CHANGED, b"\x0f")
        assert answer.opt.content_format == BINARY
        assert await worker.told(1) == [("l1", "sent", "")]


async def test_without_an_answer_in_time_it_is_durable_all_the_same() -> None:
    """Where the stages say nothing within `answer_timeout`, the device gets 2.04 without a
    downlink.
    """
    worker = meters()
    async with listening(worker) as port, client() as device:
        answer = await ask(device, f"coap://127.0.0.1:{port}/meters/d1", b"1")
    assert (answer.code, answer.payload) == (Code.CHANGED, b"")
    assert len(worker.log.uplinks()) == 1


async def test_a_repeated_message_is_taken_once() -> None:
    """A device that repeats its message, since the answer got lost, gets the same answer again."""
    worker = meters()
    post = b"\x42\x02\x12\x34\xab\xcd\xb6meters\x02d1\xff1"  # CON POST, id 0x1234, /meters/d1
    async with listening(worker) as port, answering(worker, b"\x0f"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            device.setblocking(False)
            device.connect(("127.0.0.1", port))
            loop = asyncio.get_running_loop()
            answers = []
            for _ in range(3):
                await loop.sock_sendall(device, post)
                async with asyncio.timeout(WITHIN_S):
                    answers.append(await loop.sock_recv(device, 2_000))
    assert len(worker.log.uplinks()) == 1
    assert answers[0][:2] == b"\x62\x44"  # ACK, 2.04
    assert answers == [answers[0]] * 3


async def test_a_full_disk_says_when_to_try_again() -> None:
    """5.03 with Max-Age; what was refused is not stored."""
    worker = meters()
    worker.log.fail = StorageFullError("no room")
    async with listening(worker) as port, client() as device:
        answer = await ask(device, f"coap://127.0.0.1:{port}/meters/d1", b"1")
    assert (answer.code, answer.opt.max_age) == (Code.SERVICE_UNAVAILABLE, 5)
    assert b"no room" in answer.payload


@pytest.mark.parametrize(
    ("given", "path", "more", "code"),
    [
        ({"token": "t"}, "meters/d1/wrong", {}, Code.UNAUTHORIZED),
        ({"token": "t"}, "meters/d1", {}, Code.UNAUTHORIZED),
        ({"tokens": {"d1": "own"}}, "meters/d2/own", {}, Code.UNAUTHORIZED),
        ({}, "other/d1", {}, Code.NOT_FOUND),
        ({}, "meters/d1/t/more", {}, Code.NOT_FOUND),
        ({}, "meters", {}, Code.BAD_REQUEST),
        ({}, "meters/d%07", {}, Code.BAD_REQUEST),
        ({}, "meters/" + "/".join(["x" * 200] * 2), {}, Code.CHANGED),
        ({}, "meters/d1", {"code": Code.GET}, Code.METHOD_NOT_ALLOWED),
        ({}, "meters/d1", {"code": Code.DELETE}, Code.METHOD_NOT_ALLOWED),
        ({}, "meters/d1/downlinks", {}, Code.METHOD_NOT_ALLOWED),
        ({}, "meters/downlinks", {"code": Code.GET, "observe": 0}, Code.BAD_REQUEST),
        ({"peers": "10.0.0.0/8"}, "meters/d1", {}, Code.FORBIDDEN),
    ],
)
async def test_who_is_refused_is_told(
    given: dict[str, Any], path: str, more: dict[str, Any], code: Code
) -> None:
    """Wrong tokens, paths, methods and names are answered as RFC 7252 says, and take nothing."""
    worker = meters(**given)
    async with listening(worker) as port, answering(worker), client() as device:
        answer = await ask(device, f"coap://127.0.0.1:{port}/{path}", b"1", **more)
    assert answer.code == code
    assert bool(worker.log.records) is (code == Code.CHANGED)


async def test_messages_in_blocks() -> None:
    """What is longer than a datagram comes whole, and a long answer goes whole; past the limit it
    is refused before it is kept.
    """
    worker = meters()
    body, long = bytes(range(256)) * 40, b"y" * 5_000
    async with listening(worker) as port, answering(worker, long), client() as device:
        uri = f"coap://127.0.0.1:{port}/meters/d1"
        answer = await ask(device, uri, body, content_format=BINARY)
        assert answer.payload == long
        assert worker.log.bodies() == [body]
        answer = await ask(device, uri, b"z" * 150_000, content_format=BINARY)
        assert answer.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert worker.log.bodies() == [body]


async def test_transfers_that_never_end_are_bounded() -> None:
    """Past `transfers_max` a message in blocks waits; one without goes on."""
    worker = meters(transfers_max=3)
    async with listening(worker) as port, answering(worker), client() as device:
        codes = []
        for number in range(5):
            uri = f"coap://127.0.0.1:{port}/meters/d{number}"
            message = Message(code=Code.POST, uri=uri, payload=b"x" * 16, block1=(0, True, 0))
            async with asyncio.timeout(WITHIN_S):
                answer = await device.request(message, handle_blockwise=False).response
            codes.append(answer.code)
        assert codes == [Code.CONTINUE] * 3 + [Code.SERVICE_UNAVAILABLE] * 2
        answer = await ask(device, f"coap://127.0.0.1:{port}/meters/d1", b"1")
        assert answer.code == Code.CHANGED


@asynccontextmanager
async def observing(context: aiocoap.Context, uri: str) -> AsyncIterator[asyncio.Queue[Message]]:
    """Observe; gives the notifications past the first answer."""
    request = context.request(Message(code=Code.GET, uri=uri, observe=0))
    async with asyncio.timeout(WITHIN_S):
        first = await request.response
    assert first.code == Code.CONTENT, first.payload
    assert first.opt.observe is not None
    heard: asyncio.Queue[Message] = asyncio.Queue()

    async def listen() -> None:
        with suppress(aiocoap.error.Error):  # It is over.
            async for notification in request.observation:
                heard.put_nowait(notification)

    listening_ = asyncio.ensure_future(listen())
    try:
        yield heard
    finally:
        if not request.observation.cancelled:
            request.observation.cancel()
        listening_.cancel()
        await asyncio.gather(listening_, return_exceptions=True)


GET_DOWNLINKS = b"\x42\x01\x12\x34\xab\xcd\x60\x56meters\x02d1\x09downlinks"  # CON, Observe: 0
GET_NO_MORE = b"\x42\x01\x12\x35\xab\xcd\x61\x01\x56meters\x02d1\x09downlinks"  # Observe: 1


async def raw_observer(opened: socket.socket, port: int, worker: Worker) -> None:
    opened.setblocking(False)
    opened.connect(("127.0.0.1", port))
    await asyncio.get_running_loop().sock_sendall(opened, GET_DOWNLINKS)
    async with asyncio.timeout(WITHIN_S):
        first = await asyncio.get_running_loop().sock_recv(opened, 2_000)
    assert first[:2] == b"\x62\x45"  # ACK, 2.05
    await until(lambda: worker.log.of("device.events"))


async def test_an_observer_that_has_ended_takes_nothing_more() -> None:
    """After the end of its observation a downlink is too late, and waits."""
    worker = meters()
    async with listening(worker) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            await raw_observer(device, port, worker)
            way = worker.way_to("d1")
            await asyncio.get_running_loop().sock_sendall(device, GET_NO_MORE)
            await until(lambda: not worker.waiting._windows)
            worker.send(way, "l1", b"?")
            assert await worker.told(1) == [("l1", "queued", "too_late")]


async def test_an_observer_that_refuses_a_notification() -> None:
    """A device that has forgotten its observation says so (RST): the downlink waits."""
    worker = meters()
    async with listening(worker) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            await raw_observer(device, port, worker)
            worker.send(worker.way_to("d1"), "l1", b"?")
            async with asyncio.timeout(WITHIN_S):
                notification = await asyncio.get_running_loop().sock_recv(device, 2_000)
            assert notification[:2] == b"\x42\x45"  # CON, 2.05
            reset = b"\x70\x00" + notification[2:4]
            await asyncio.get_running_loop().sock_sendall(device, reset)
            assert await worker.told(1) == [("l1", "queued", "not_answered")]
            await until(lambda: not worker.waiting._windows)


async def test_an_observer_that_has_gone_is_noticed() -> None:
    """A downlink that is not confirmed in time is possibly delivered, and the window is closed."""
    worker = meters()
    async with listening(worker) as port:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            await raw_observer(device, port, worker)
            worker.send(worker.way_to("d1"), "l1", b"?")
            assert await worker.told(1) == [("l1", "queued", "not_answered")]
            await until(lambda: not worker.waiting._windows)


async def test_observers_are_bounded() -> None:
    """Past `observers_max` a device is told to come later."""
    worker = meters(observers_max=1)
    async with listening(worker) as port, client() as device:
        uri = f"coap://127.0.0.1:{port}/meters"
        async with observing(device, f"{uri}/d1/downlinks"):
            answer = await ask(device, f"{uri}/d2/downlinks", code=Code.GET, observe=0)
            assert answer.code == Code.SERVICE_UNAVAILABLE


async def test_an_observation_has_an_end() -> None:
    """After `observe_lifetime` the device is told that it is over, and may ask again."""
    worker = meters(observe_lifetime="1s")
    async with listening(worker) as port, client() as device:
        uri = f"coap://127.0.0.1:{port}/meters/d1/downlinks"
        async with observing(device, uri) as heard:
            async with asyncio.timeout(WITHIN_S):
                last = await heard.get()
            assert last.opt.observe is None
        await until(lambda: not worker.waiting._windows)


async def test_a_downlink_that_no_notification_holds_fails() -> None:
    """It ends with the reason, and the next one leaves."""
    worker = meters()
    async with listening(worker) as port, client() as device:
        uri = f"coap://127.0.0.1:{port}/meters/d1/downlinks"
        async with observing(device, uri) as heard:
            await until(lambda: worker.log.of("device.events"))
            worker.send(worker.way_to("d1"), "l1", b"x" * 1_025)
            worker.send(worker.way_to("d1"), "l2", b"y")
            async with asyncio.timeout(WITHIN_S):
                assert (await heard.get()).payload == b"y"
            assert await worker.told(2) == [("l1", "failed", "refused"), ("l2", "sent", "")]


async def test_libcoaps_client() -> None:
    """The client of another implementation posts, also in blocks, and observes."""
    coap_client = program("coap-client-notls", "libcoap3-bin")
    worker = meters(token="t")
    large = "z" * 3_000
    async with listening(worker) as port, answering(worker, b"down"):
        uri = f"coap://127.0.0.1:{port}/meters/d1/t"

        async def run(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                coap_client, "-B", "10", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            async with asyncio.timeout(WITHIN_S):
                out, err = await process.communicate()
            assert process.returncode == 0, err
            return out.decode()

        assert "down" in await run("-m", "post", "-t", "binary", "-e", "hi", uri)
        await run("-m", "post", "-t", "binary", "-b", "64", "-e", large, uri)
        assert worker.log.bodies() == [b"hi", large.encode()]
        observing_ = asyncio.ensure_future(run("-m", "get", "-s", "2", f"{uri}/downlinks"))
        await until(lambda: worker.log.of("device.events"))
        worker.send(worker.way_to("d1"), "l9", b"notified")
        assert "notified" in await observing_
        assert ("l9", "sent", "") in await worker.told(2)


async def test_a_port_that_cannot_be_had() -> None:
    """It is said, and tried again."""
    worker = meters(host="192.0.2.1", port=free_port())
    await worker.sources.refresh()
    try:
        await until(lambda: worker.status().state == "lost")
        assert "nobody can listen at 192.0.2.1:" in worker.status().last_error
    finally:
        await worker.sources.stop()


async def test_over_dtls() -> None:
    """With its pre-shared key a device of another implementation posts; with a wrong one it is not
    heard, nor is plain CoAP.
    """
    pytest.importorskip("DTLSSocket", reason="pip install --group compiled")
    coap_client = program("coap-client-openssl", "libcoap3-bin")
    worker = meters(dtls={"keys": {"meter": "secret-key"}})
    async with listening(worker) as port, answering(worker):
        for key in ("wrong-key", "secret-key"):
            uri = f"coaps://127.0.0.1:{port}/meters/d1"
            process = await asyncio.create_subprocess_exec(
                coap_client, "-B", "2", "-u", "meter", "-k", key, "-m", "post", "-e", key, uri
            )
            async with asyncio.timeout(WITHIN_S):
                await process.wait()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(GET_DOWNLINKS, ("127.0.0.1", port))
        (chosen,) = worker.book.values()
        assert await send(chosen, "d1", Request(b"sample")) == b"2.04 Changed"
    assert worker.log.bodies() == [b"secret-key", b"sample"]
