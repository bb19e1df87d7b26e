"""Integrations over UDP, against senders that behave and senders that do not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.errors import StorageFullError
from tests.real.listening import BY_QUERY, WITHIN_S, Worker, integration, listening, until
from tests.real.servers import free_port

BY_FIELD = {"device": {"length": 2, "as": "text"}}


class Device:
    """A socket of a device; it has the same address until it is closed."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    async def say(self, *datagrams: bytes) -> None:
        for number, datagram in enumerate(datagrams):
            await asyncio.get_running_loop().sock_sendall(self._socket, datagram)
            if number % 50 == 49:  # the operating system's buffers are no part of this
                await asyncio.sleep(0.005)

    async def hear(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65_536)


@asynccontextmanager
async def device_at(port: int) -> AsyncIterator[Device]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect(("127.0.0.1", port))
        yield Device(opened)


@pytest.mark.parametrize(
    ("naming", "options", "said", "body", "device"),
    [
        (BY_FIELD, BY_QUERY, b"d1:21.5", b"d1:21.5", "d1"),
        ({"device": {"head": ";"}, "token": "t"}, BY_QUERY, b"d1;t;21.5", b"21.5", "d1"),
        ({"device": "peer"}, BY_QUERY, b"21.5", b"21.5", "127.0.0.1"),
        ({}, {"device_field": "id"}, b'{"id":"d1"}', b'{"id":"d1"}', "d1"),
    ],
)
async def test_a_datagram_is_a_message(
    naming: dict[str, Any], options: dict[str, Any], said: bytes, body: bytes, device: str
) -> None:
    """Each becomes a record with its device, and where it came from."""
    worker = Worker(integration("udp", options, **naming))
    async with listening(worker) as port, device_at(port) as peer:
        await peer.say(said)
        await until(worker.log.uplinks)

    (record,) = worker.log.uplinks()
    assert (record.key, record.value) == (f"acme/{device}", body)
    assert json.loads(record.headers["http_query"])["peer"].startswith("127.0.0.1:")


async def test_messages_of_a_device_stay_in_order() -> None:
    """As they arrive at this machine, so they are stored."""
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD))
    sent = [b"d1%04d" % number for number in range(500)]
    async with listening(worker) as port, device_at(port) as device:
        await device.say(*sent)
        await until(lambda: len(worker.log.uplinks()) >= 500)

    assert worker.log.bodies() == sent


async def test_several_messages_in_a_datagram() -> None:
    """With a framing a datagram holds several; what ends within one keeps the whole ones, and is
    a dead letter.
    """
    given = {"framing": {"length": 1}, "acknowledge": "+", **BY_FIELD}
    worker = Worker(integration("udp", BY_QUERY, **given))
    async with listening(worker) as port, device_at(port) as device:
        await device.say(b"\x03d1a\x03d2b")
        assert await device.hear() == b"++"
        await device.say(b"\x03d1c\x09d2trunc")
        assert await device.hear() == b"+"

    assert worker.log.bodies() == [b"d1a", b"d2b", b"d1c"]
    (letter,) = worker.log.letters()
    assert (letter.reason, letter.value) == ("frame_length", b"\x03d1c\x09d2trunc")


async def test_a_downlink_leaves_within_the_window() -> None:
    """What is asked for within the window goes to the address of the last datagram at once; after
    it, it waits.
    """
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD, window="1s"))
    async with listening(worker) as port, device_at(port) as device:
        await device.say(b"d1")
        await until(worker.log.uplinks)
        way = worker.way_to("d1")
        worker.send(way, "l1", b"one")
        worker.send(way, "l2", b"two")
        assert [await device.hear(), await device.hear()] == [b"one", b"two"]
        await until(lambda: not worker.waiting._windows)
        worker.send(way, "l3", b"three")
        assert await worker.told(3) == [
            ("l1", "sent", ""), ("l2", "sent", ""), ("l3", "queued", "too_late")
        ]  # fmt: skip
        await device.say(b"d1")
        await until(lambda: len(worker.log.uplinks()) == 2)
        assert worker.way_to("d1").request != way.request


async def test_each_datagram_keeps_the_window_open() -> None:
    """A device that goes on sending stays reachable by one window."""
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD, window="500ms"))
    async with listening(worker) as port, device_at(port) as device:
        for number in range(15):
            await device.say(b"d1")
            await until(lambda number=number: len(worker.log.uplinks()) == number + 1)
            await asyncio.sleep(0.1)
        assert len(worker.waiting._windows) == 1
        worker.send(worker.way_to("d1"), "l1", b"still here")
        assert await device.hear() == b"still here"


async def test_a_device_that_moves_is_reached_where_it_was_heard_last() -> None:
    """A network that gives a device another port does not lose its downlinks."""
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD))
    async with listening(worker) as port, device_at(port) as old, device_at(port) as new:
        await old.say(b"d1")
        await until(worker.log.uplinks)
        await new.say(b"d1")
        await until(lambda: len(worker.log.uplinks()) == 2)
        worker.send(worker.way_to("d1"), "l1", b"here")
        assert await new.hear() == b"here"


async def test_a_downlink_that_no_datagram_holds_fails() -> None:
    """It ends with the reason, and the next one leaves."""
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD))
    async with listening(worker) as port, device_at(port) as device:
        await device.say(b"d1")
        await until(worker.log.uplinks)
        worker.send(worker.way_to("d1"), "l1", b"x" * 70_000)
        worker.send(worker.way_to("d1"), "l2", b"y")
        assert await device.hear() == b"y"
        assert await worker.told(2) == [("l1", "failed", "refused"), ("l2", "sent", "")]


async def test_peers_that_are_remembered_are_bounded() -> None:
    """Past `windows_max` the one heard longest ago is forgotten, and told so of its downlink."""
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD, windows_max=2))
    async with listening(worker) as port, device_at(port) as d1, device_at(port) as d2:
        await d1.say(b"d1")
        await until(worker.log.uplinks)
        way = worker.way_to("d1")
        await d2.say(b"d2")
        async with device_at(port) as d3:
            await d3.say(b"d3")
            await until(lambda: len(worker.log.uplinks()) == 3)
        assert len(worker.waiting._windows) == 2
        worker.send(way, "l1", b"?")
        assert await worker.told(1) == [("l1", "queued", "too_late")]


async def test_what_comes_too_fast_is_counted() -> None:
    """While nothing can be stored, what fits is kept and the rest is counted, of all and of each
    peer; what was kept arrives.
    """
    given = {**BY_FIELD, "in_flight_max": 50, "in_flight_per_peer_max": 10}
    worker = Worker(integration("udp", BY_QUERY, **given))
    worker.log.fail = StorageFullError("no room")
    async with listening(worker) as port, device_at(port) as device:
        await device.say(b"d1 first")
        await until(lambda: worker.status().errors)
        await device.say(*(b"d1 %d" % number for number in range(30)))
        await asyncio.sleep(0.1)
        worker.log.fail = None
        await until(lambda: worker.status().passed_over == 20)
        await until(lambda: len(worker.log.uplinks()) == 11)
    assert worker.log.bodies() == [b"d1 first", *(b"d1 %d" % number for number in range(10))]


async def test_garbage_never_stops_the_server() -> None:
    """Empty, enormous, without a name, with a wrong token or a hostile one: counted or a dead
    letter, unanswered, and the next device is served.
    """
    given = {"device": {"head": ";"}, "token": "t", "acknowledge": "+"}
    worker = Worker(integration("udp", BY_QUERY, **given))
    bad = [b"", b"\xff" * 9_000, b"d1;wrong;x", b"d1", b"\xff\xfe;t;x", b";t;x", b"\x00\x07;t;x"]
    async with listening(worker) as port, device_at(port) as device:
        await device.say(*bad, b"d1;t;" + b"y" * 60_000, b"d1;t;good")
        await until(lambda: b"good" in worker.log.bodies())
        await until(lambda: worker.status().passed_over == 4)
    unnamed = [record.value for record in worker.log.uplinks() if record.key == "acme/meters"]
    assert unnamed == [b"x"] * 3, "convert makes dead letters of what names no device"
    assert worker.log.uplinks()[-1].key == "acme/d1"


async def test_strangers_are_not_heard() -> None:
    """Datagrams of none of the networks named are counted, and nothing more."""
    worker = Worker(integration("udp", BY_QUERY, **BY_FIELD, peers="10.0.0.0/8"))
    async with listening(worker) as port, device_at(port) as device:
        await device.say(b"d1", b"d1")
        await until(lambda: worker.status().passed_over == 2)
    assert worker.log.records == []


async def test_a_port_that_is_taken() -> None:
    """It is said, and tried until it is free."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        worker = Worker(integration("udp", BY_QUERY, **BY_FIELD, port=port))
        await worker.sources.refresh()
        await until(lambda: worker.status().state == "lost")
        assert f"nobody can listen at 127.0.0.1:{port}: " in worker.status().last_error
    async with listening(worker):
        assert worker.status().state == "connected"


async def test_workers_of_one_machine_share_a_port() -> None:
    """With `share_port` each peer goes to one of them, whose window it is."""
    port = free_port()
    chosen = integration("udp", BY_QUERY, **BY_FIELD, port=port, share_port=True)
    one, other = Worker(chosen), Worker(chosen, instance="i2")
    async with listening(one), listening(other):
        for number in range(20):
            async with device_at(port) as device:
                await device.say(b"d%d" % (number % 10))
                count = number + 1
                await until(lambda n=count: len(one.log.uplinks()) + len(other.log.uplinks()) == n)
                for worker in (one, other):
                    for way in list(worker.waiting._windows):
                        assert way.startswith(worker.waiting.instance)
