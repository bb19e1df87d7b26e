"""Integrations over TCP, against devices that behave and devices that do not."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageFullError
from pipeline.rulebook.connections.framing import FramingConfig
from tests.real.listening import BY_QUERY, WITHIN_S, Worker, integration, listening, until
from tests.real.servers import Certificates, free_port

LINES = {"framing": {"delimiter": "\n"}}
BY_FIELD = {"device": {"length": 2, "as": "text"}}
D1 = {**LINES, **BY_FIELD}
HELLO = {**LINES, "device": {"handshake": " "}, "token": "hush"}
NO_LINGER = struct.pack("ii", 1, 0)


class Device:
    """One connection of a device."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.writer.write(chunk)
            await self.writer.drain()

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.reader.readexactly(count)

    async def end(self) -> bytes:
        """Return what comes until the other side closes."""
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def leave(self, *, reset: bool = False) -> None:
        if reset:
            opened = self.writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.writer.transport.abort()


CONNECTED: list[Device] = []


@pytest.fixture(autouse=True)
async def _all_leave() -> AsyncIterator[None]:
    yield
    while CONNECTED:
        CONNECTED.pop().leave()


async def connect(port: int, **more: Any) -> Device:
    async with asyncio.timeout(WITHIN_S):
        device = Device(*await asyncio.open_connection("127.0.0.1", port, **more))
    CONNECTED.append(device)
    return device


def passed_over(worker: Worker) -> int:
    return int(worker.status().passed_over)


@pytest.mark.parametrize(
    "framing",
    [{"length": 1}, {"length": 2, "order": "little"}, {"length": 4, "includes_itself": True},
     {"delimiter": {"hex": "0d0a"}}, {"fixed": 6}],
    ids=str,
)  # fmt: skip
async def test_messages_arrive_in_order(framing: dict[str, Any]) -> None:
    """However a device frames, each of its messages becomes a record of its own, in order, with its
    device and where it came from.
    """
    worker = Worker(integration("tcp", BY_QUERY, framing=framing, **BY_FIELD))
    sent = [b"d1%04d" % number for number in range(500)]
    frame = FramingConfig.model_validate(framing).frame
    async with listening(worker) as port:
        device = await connect(port)
        stream = b"".join(map(frame, sent))
        await device.say(stream[:5], stream[5:1000], stream[1000:])
        await until(lambda: len(worker.log.uplinks()) >= 500)
        device.leave()

    assert worker.log.bodies() == sent
    (key,) = {record.key for record in worker.log.uplinks()}
    assert key == "acme/d1"
    query = json.loads(worker.log.uplinks()[0].headers["http_query"])
    assert query["device"] == "d1"
    assert query["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("naming", "options", "said", "body", "device"),
    [
        (
            {"device": {"offset": 1, "length": 2}},
            BY_QUERY,
            b"\x01\xab\xcd",
            b"\x01\xab\xcd",
            "abcd",
        ),
        ({"device": {"head": ";"}}, BY_QUERY, b"d1;21.5", b"21.5", "d1"),
        ({"device": {"head": ";"}, "token": "t"}, BY_QUERY, b"d1;t;21;5", b"21;5", "d1"),
        ({"device": "peer"}, BY_QUERY, b"hi", b"hi", "127.0.0.1"),
        ({}, {"device_field": "id"}, b'{"id":"d1"}', b'{"id":"d1"}', "d1"),
    ],
)
async def test_a_message_names_its_device(
    naming: dict[str, Any], options: dict[str, Any], said: bytes, body: bytes, device: str
) -> None:
    """By its bytes, by its head, by its address, or as the dialect finds it."""
    worker = Worker(integration("tcp", options, **LINES, **naming))
    async with listening(worker) as port:
        peer = await connect(port)
        await peer.say(said + b"\n")
        await until(worker.log.uplinks)
        peer.leave()

    (record,) = worker.log.uplinks()
    assert (record.key, record.value) == (f"acme/{device}", body)


async def test_a_log_that_takes_nothing_holds_devices_back() -> None:
    """While the disk is full nothing more is read than fits the buffers; then all of it is taken,
    in order.
    """
    worker = Worker(integration("tcp", BY_QUERY, **D1, frame_bytes_max=20_000))
    worker.log.fail = StorageFullError("no room")
    count = 1_000
    async with listening(worker) as port:
        device = await connect(port)
        blocks = [b"d1%05d" % number + b"x" * 10_000 + b"\n" for number in range(count)]
        saying = asyncio.ensure_future(device.say(*blocks))
        await until(lambda: worker.status().errors >= 2)
        assert not saying.done(), "ten megabytes are more than anybody buffers"
        worker.log.fail = None
        await saying
        await until(lambda: len(worker.log.uplinks()) >= count)
        device.leave()
    assert [int(body[2:7]) for body in worker.log.bodies()] == list(range(count))


async def test_a_handshake_opens_the_way() -> None:
    """A device that names itself and proves it can be reached before it has said anything; its
    messages need no name.
    """
    worker = Worker(integration("tcp", BY_QUERY, **HELLO, acknowledge="OK\n"))
    async with listening(worker) as port:
        device = await connect(port)
        await device.say(b"d1 hush\n")
        assert await device.hear(3) == b"OK\n"
        (opened,) = worker.log.records
        assert (opened.topic, opened.key) == ("device.events", "acme/d1")
        worker.send(worker.way_to("d1"), "l1", b"wake up")
        assert await device.hear(8) == b"wake up\n"
        await device.say(b"21.5\n")
        assert await device.hear(3) == b"OK\n"
        assert worker.log.bodies() == [b"21.5"]
        assert worker.log.uplinks()[0].key == "acme/d1"
        device.leave()


@pytest.mark.parametrize("said", [b"d1 wrong\n", b"d1\n", b"\n \n", b"\xff\xfe hush\n", b" hush\n"])
async def test_a_wrong_handshake_ends_the_connection(said: bytes) -> None:
    """Who does not prove itself is heard no further: nothing of it is taken or answered."""
    worker = Worker(integration("tcp", BY_QUERY, **HELLO, acknowledge="OK\n"))
    async with listening(worker) as port:
        device = await connect(port)
        await device.say(said + b"21.5\n")
        assert await device.end() == b""
        await until(lambda: passed_over(worker))
    assert worker.log.records == []


async def test_a_wrong_token_ends_the_connection() -> None:
    """What came before it on the connection is taken and acknowledged; the rest is not."""
    given = {**LINES, "device": {"head": ";"}, "tokens": {"d1": "own"}, "acknowledge": "+"}
    worker = Worker(integration("tcp", BY_QUERY, **given))
    async with listening(worker) as port:
        device = await connect(port)
        await device.say(b"d1;own;1\nd2;own;2\nd1;own;3\n")
        heard = await device.end()
    assert worker.log.bodies()[:1] == [b"1"]
    assert b"2" not in worker.log.bodies()
    assert len(heard) == len(worker.log.bodies())


async def test_a_connection_that_has_gone_takes_nothing() -> None:
    """A downlink for a device that has left is told to be too late, and waits."""
    worker = Worker(integration("tcp", BY_QUERY, **D1))
    async with listening(worker) as port:
        for reset in (False, True):
            device = await connect(port)
            await device.say(b"d1\n")
            await until(worker.log.uplinks)
            way = worker.way_to("d1")
            device.leave(reset=reset)
            await until(lambda: not worker.waiting._windows)
            worker.send(way, f"l{reset}", b"?")
            worker.log.records = [r for r in worker.log.records if r.topic == "device.events"]
        assert await worker.told(2) == [
            (f"l{reset}", "queued", "too_late") for reset in (False, True)
        ]


async def test_a_device_that_takes_nothing_is_noticed() -> None:
    """A downlink whose bytes the device's side does not take is possibly delivered, not sent; the
    connection counts as dead, and what waits behind it was surely not written.
    """
    given = {**D1, "write_timeout": "300ms"}
    worker = Worker(integration("tcp", BY_QUERY, **given))
    async with listening(worker) as port:
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(opened, b"d1\n")
        await until(worker.log.uplinks)
        way = worker.way_to("d1")
        worker.send(way, "large", b"x" * 8_000_000)
        await asyncio.sleep(0.05)
        worker.send(way, "next", b"y")
        assert sorted(await worker.told(2)) == [
            ("large", "queued", "not_answered"),
            ("next", "queued", "too_late"),
        ]
        opened.close()
        assert "did not take a downlink" not in worker.status().last_error


async def test_a_downlink_that_cannot_be_framed_fails() -> None:
    """It ends with the reason, and the connection goes on."""
    worker = Worker(integration("tcp", BY_QUERY, **D1))
    async with listening(worker) as port:
        device = await connect(port)
        await device.say(b"d1\n")
        await until(worker.log.uplinks)
        worker.send(worker.way_to("d1"), "l1", b"two\nlines")
        worker.send(worker.way_to("d1"), "l2", b"one line")
        assert await device.hear(9) == b"one line\n"
        assert await worker.told(2) == [("l1", "failed", "refused"), ("l2", "sent", "")]
        device.leave()


async def test_a_gateway_has_one_way_for_all_its_devices() -> None:
    """Several devices behind one connection are each reached by it."""
    worker = Worker(integration("tcp", BY_QUERY, **D1))
    async with listening(worker) as port:
        gateway = await connect(port)
        await gateway.say(b"d1\nd2\nd3\n")
        await until(lambda: len(worker.log.uplinks()) == 3)
        ways = {worker.way_to(device).request for device in ("d1", "d2", "d3")}
        assert len(ways) == 1
        for device in ("d1", "d2", "d3"):
            worker.send(worker.way_to(device), f"for-{device}", device.encode(), device)
        assert await gateway.hear(9) == b"d1\nd2\nd3\n"
        gateway.leave()


async def test_garbage_never_stops_the_server() -> None:
    """Truncated, oversized, slow, hostile: each ends its own connection at most, is counted or a
    dead letter, and the next device is served.
    """
    given = {"framing": {"length": 2}, "frame_bytes_max": 1_000, "frame_timeout": "200ms"}
    worker = Worker(integration("tcp", BY_QUERY, **given, **BY_FIELD))
    async with listening(worker) as port:
        for said, closes in [
            (b"GET / HTTP/1.1\r\n\r\n", True),  # a length of 18,245
            (b"\x16\x03\x01\x02\x00\x01\x00", True),  # TLS to a plain port
            (b"\xff" * 3_000, True),
            (b"\x00\x10slow", True),
            (b"\x00\x02\xff\xfe", False),  # no text where the name is
            (b"\x00\x01x", False),
            (b"\x00\x06\x00\x00\xe2\x80\xae!", False),
            (b"\x00\x00" * 1_000, False),
        ]:
            device = await connect(port)
            await device.say(said)
            if closes:
                assert await device.end() == b""
            device.leave()
        broken = await connect(port)
        await broken.say(b"\x00\x09trunc")
        broken.leave(reset=True)
        good = await connect(port)
        await good.say(b"\x00\x04d1ok")
        await until(lambda: b"d1ok" in worker.log.bodies())
        good.leave()
        await until(lambda: worker.status().passed_over >= 5)
    letters = [letter for letter in worker.log.letters() if letter.reason == "frame_length"]
    assert [letter.value for letter in letters] == [
        b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\xff" * 1_000
    ]  # fmt: skip
    unnamed = [record for record in worker.log.uplinks() if record.key == "acme/meters"]
    assert len(unnamed) == 3, "convert makes dead letters of what names no device"


async def test_a_slow_sender_is_not_waited_for() -> None:
    """A byte now and then does not keep a message open past `frame_timeout`, and costs nobody else
    anything.
    """
    worker = Worker(integration("tcp", BY_QUERY, **D1, frame_timeout="300ms"))
    async with listening(worker) as port:
        slow = await connect(port)

        async def drip() -> None:
            while True:
                await slow.say(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        quick = await connect(port)
        await quick.say(b"d1 quick\n")
        await until(worker.log.uplinks)
        assert await slow.end() == b""
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        slow.leave()
        quick.leave()


async def test_limits_of_connections() -> None:
    """One too many is closed at once, of all or of one peer; when one leaves there is room."""
    worker = Worker(integration("tcp", BY_QUERY, **D1, connections_per_peer_max=2))
    async with listening(worker) as port:
        first, second = await connect(port), await connect(port)
        await first.say(b"d1\n")
        await second.say(b"d2\n")
        await until(lambda: len(worker.log.uplinks()) == 2)
        third = await connect(port)
        assert await third.end() == b""
        first.leave()
        await until(lambda: len(worker.waiting._windows) == 1)
        fourth = await connect(port)
        await fourth.say(b"d4\n")
        await until(lambda: len(worker.log.uplinks()) == 3)
        for device in (second, fourth):
            device.leave()


async def test_strangers_are_refused() -> None:
    """Who is of none of the networks named is not heard."""
    worker = Worker(integration("tcp", BY_QUERY, **D1, peers=["10.0.0.0/8"]))
    async with listening(worker) as port:
        stranger = await connect(port)
        assert await stranger.end() == b""
        await until(lambda: passed_over(worker) == 1)


async def test_a_silent_connection_ends() -> None:
    """A connection without a byte for `idle_timeout` is closed, which is no fault."""
    worker = Worker(integration("tcp", BY_QUERY, **D1, idle_timeout="1s"))
    async with listening(worker) as port:
        device = await connect(port)
        await device.say(b"d1\n")
        assert await device.end() == b""
    assert len(worker.log.uplinks()) == 1


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    """Devices with a certificate of ours talk over TLS both ways; others do not come in."""
    certificates = Certificates(tmp_path)
    own = {"certificate_file": certificates.path("server.pem"),
           "key_file": certificates.path("server.key"),
           "ca_file": certificates.path("ca.pem")}  # fmt: skip
    worker = Worker(integration("tcp", BY_QUERY, **D1, tls=own))
    context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
    context.load_cert_chain(certificates.path("client.pem"), certificates.path("client.key"))
    async with listening(worker) as port:
        for more in ({}, {"ssl": ssl.create_default_context(cafile=certificates.path("ca.pem"))}):
            with suppress(OSError):
                stranger = await connect(port, **more)
                await stranger.say(b"d9\n")
                await stranger.end()
        device = await connect(port, ssl=context)
        await device.say(b"d1\n")
        await until(worker.log.uplinks)
        for number in range(20):
            worker.send(worker.way_to("d1"), f"l{number}", b"%02d" % number)
            await device.say(b"d1\n")
        assert await device.hear(60) == b"".join(b"%02d\n" % n for n in range(20))
        assert await worker.told(20) == [(f"l{n}", "sent", "") for n in range(20)]
        device.leave()
    assert {record.key for record in worker.log.uplinks()} == {"acme/d1"}


async def test_a_port_that_is_taken() -> None:
    """It is said once, and tried until it is free."""
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        worker = Worker(integration("tcp", BY_QUERY, **D1, port=port))
        await worker.sources.refresh()
        await until(lambda: worker.status().state == "lost")
        assert f"nobody can listen at 127.0.0.1:{port}: " in worker.status().last_error
    async with listening(worker):
        assert worker.status().state == "connected"


async def test_certificates_that_are_not_there() -> None:
    """A server without its certificate says which file it cannot use."""
    worker = Worker(integration("tcp", BY_QUERY, **D1, tls={"certificate_file": "/nowhere.pem"}))
    await worker.sources.refresh()
    await until(lambda: worker.status().errors)
    assert "a certificate of the server cannot be used" in worker.status().last_error
    await worker.sources.stop()


async def test_a_stop_loses_no_downlink() -> None:
    """When the worker stops while a downlink is being written, it is possibly delivered, and waits;
    one that was not yet written is not flagged.
    """
    worker = Worker(integration("tcp", BY_QUERY, **D1))
    async with listening(worker) as port:
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(opened, b"d1\n")
        await until(worker.log.uplinks)
        way = worker.way_to("d1")
        worker.send(way, "large", b"x" * 8_000_000)
        await asyncio.sleep(0.05)
    worker.send(way, "late", b"y")
    assert sorted(await worker.told(2)) == [
        ("large", "queued", "not_answered"),
        ("late", "queued", "too_late"),
    ]
    opened.close()


async def test_many_devices_at_once() -> None:
    """Two hundred devices, each with its own connection: all messages arrive, each device's in
    order.
    """
    given = {**HELLO, "connections_per_peer_max": 1_000, "acknowledge": "+"}
    worker = Worker(integration("tcp", BY_QUERY, **given))

    async def live(port: int, number: int) -> None:
        device = await connect(port)
        await device.say(b"dev%d hush\n" % number)
        for count in range(10):
            await device.say(b"%d\n" % count)
        assert await device.hear(11) == b"+" * 11
        device.leave()

    async with listening(worker) as port:
        await asyncio.gather(*(live(port, number) for number in range(200)))
    for number in range(200):
        bodies = [r.value for r in worker.log.uplinks() if r.key == f"acme/dev{number}"]
        assert bodies == [b"%d" % count for count in range(10)]
