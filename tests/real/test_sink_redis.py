"""The sink `redis` against a real Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis.asyncio

from pipeline.errors import RetryableError
from tests.real.servers import Certificates
from tests.real.sink_servers import Redis, SinkServers
from tests.real.sink_work import (
    DELIVERED,
    POSTPONED,
    Cable,
    comes_back,
    deliveries,
    delivery,
    made,
    opened,
    verdicts,
)


@pytest.fixture
def port(sink_servers: SinkServers) -> int:
    return sink_servers[Redis].port


async def entries(port: int, stream: str) -> list[dict[bytes, bytes]]:
    client = redis.asyncio.Redis(port=port)
    found: list[Any] = await client.xrange(stream)
    await client.aclose()
    return [fields for _, fields in found]


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


async def test_entries_are_added_in_order(port: int) -> None:
    """Each delivery is an entry with id, device, time, content type and body, in order."""
    async with opened("redis", url=url(port), stream="order") as transport:
        results = await transport.deliver(deliveries(120))
    found = await entries(port, "order")

    assert verdicts(results) == [DELIVERED] * 120
    assert [entry[b"id"].decode() for entry in found] == [f"d{n}" for n in range(120)]
    assert found[1] | {b"body": b""} == {
        b"id": b"d1",
        b"device": b"dev1",
        b"time": b"2026-09-21T14:13:20.001Z",
        b"content_type": b"application/json",
        b"body": b"",
    }
    assert orjson.loads(found[1][b"body"]) == {"n": 1, "é": [None, 1.5]}


async def test_streams_are_cut(port: int) -> None:
    """With `length` a stream keeps about so many entries (Redis cuts by whole nodes of 100)."""
    async with opened("redis", url=url(port), stream="cut:{device}", length=200) as transport:
        for start in range(0, 2_000, 500):
            await transport.deliver([delivery(start + n) for n in range(500)])

    found = await entries(port, "cut:dev1")
    assert 200 <= len(found) < 320
    assert found[-1][b"id"] == b"d1999"


async def test_cloudevents_binary_is_in_fields(port: int) -> None:
    """Attributes are fields `ce_…` beside the body."""
    config = {"url": url(port), "stream": "ce", "format": "cloudevents_binary"}
    async with opened("redis", **config) as transport:
        await transport.deliver([delivery(1)])

    (entry,) = await entries(port, "ce")
    assert (entry[b"ce_id"], entry[b"ce_specversion"]) == (b"d1", b"1.0")


async def test_a_key_of_another_type_is_the_destinations_fault(port: int) -> None:
    """Where a stream's name is taken by a text, nothing is lost: it is postponed, and says why."""
    client = redis.asyncio.Redis(port=port)
    await client.set("taken", "text")
    await client.aclose()
    async with opened("redis", url=url(port), stream="taken") as transport:
        (result,) = await transport.deliver([delivery(0)])

    assert result.verdict is POSTPONED
    assert "WRONGTYPE" in result.message


async def test_a_full_redis_takes_nothing_and_later_all() -> None:
    """Out of memory a batch is postponed as a whole; with room again it is there once."""
    server = Redis("--maxmemory", "1", "--maxmemory-policy", "noeviction").start()
    client = redis.asyncio.Redis(port=server.port)
    try:
        async with opened("redis", url=url(server.port), stream="s") as transport:
            with pytest.raises(RetryableError, match="maxmemory"):
                await transport.deliver(deliveries(10))
            await client.config_set("maxmemory", "100mb")
            assert verdicts(await comes_back(transport, deliveries(10))) == [DELIVERED] * 10
        assert len(await entries(server.port, "s")) == 10
    finally:
        await client.aclose()
        server.remove()


async def test_a_cut_cable(port: int) -> None:
    """With the connection gone a batch is postponed whole, and goes out later."""
    # Two blocks, as the second needs the first one's port.
    async with Cable(port) as cable:  # noqa: SIM117 - as said above
        async with opened("redis", url=url(cable.port), stream="cable") as transport:
            await transport.deliver(deliveries(5))
            await cable.cut()
            with pytest.raises(RetryableError):
                await transport.deliver(deliveries(5))
            await cable.mend()
            assert verdicts(await comes_back(transport, deliveries(5))) == [DELIVERED] * 5

    assert len(await entries(port, "cable")) == 10


async def test_a_redis_that_stands_still() -> None:
    """A server that hangs costs the timeout, and no more."""
    server = Redis().start()
    try:
        async with opened("redis", url=url(server.port), stream="s", timeout=0.5) as transport:
            server.pause()
            started = asyncio.get_running_loop().time()
            with pytest.raises(RetryableError):
                await transport.deliver([delivery(0)])
            assert asyncio.get_running_loop().time() - started < 3
            server.resume()
            assert verdicts(await comes_back(transport, [delivery(0)])) == [DELIVERED]
    finally:
        server.remove()


async def test_a_password(port: int) -> None:
    """The password, percent-encoded in the url, lets us in; a wrong one is said without it."""
    server = Redis("--requirepass", "ge:heim/77").start()
    try:
        right = f"redis://:ge%3Aheim%2F77@127.0.0.1:{server.port}"
        async with opened("redis", url=right, stream="s") as transport:
            assert verdicts(await transport.deliver([delivery(1)])) == [DELIVERED]
        with pytest.raises(RetryableError) as found:
            await made("redis", url=right.replace("77", "78"), stream="s").open()
        assert "heim" not in str(found.value)
    finally:
        server.remove()
    with pytest.raises(RetryableError):
        await made("redis", url="redis://127.0.0.1:1", stream="s").open()


async def test_tls_with_our_own_certificate(tmp_path: Path) -> None:
    """Over TLS with a CA and a client certificate of one's own; without it it is refused."""
    certificates = Certificates(tmp_path)
    server = Redis(tls=certificates.folder).start()
    address = {"url": f"rediss://127.0.0.1:{server.port}", "stream": "s"}
    try:
        own = {
            "ca_file": certificates.path("ca.pem"),
            "certificate_file": certificates.path("client.pem"),
            "key_file": certificates.path("client.key"),
        }
        async with opened("redis", **address, tls=own) as transport:
            assert verdicts(await transport.deliver([delivery(1)])) == [DELIVERED]
        for tls in ({"ca_file": own["ca_file"]}, {}):
            with pytest.raises(RetryableError):
                await made("redis", **address, tls=tls).open()
    finally:
        server.remove()
