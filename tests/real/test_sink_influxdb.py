"""The sink `influxdb`: against a real InfluxDB 1, and for version 2, which neither Debian nor a
package registry has, against a fake that checks address, token and line protocol.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from pipeline.errors import RetryableError
from pipeline.model.delivery import Origin
from tests.real.sink_servers import Influxdb, SinkServers
from tests.real.sink_work import (
    DELIVERED,
    NOW_MS,
    REFUSED,
    Cable,
    comes_back,
    delivery,
    made,
    opened,
    verdicts,
)

# One line of the protocol: each part is anything but the unescaped signs that end it.
_NAME = r"(?:\\.|[^,= \\]|\\(?=[^,= ]))+"
_FIELD = rf'{_NAME}=(?:"(?:\\.|[^"\\])*"|-?[0-9.]+(?:e[+-]?[0-9]+)?i?|true|false)'
LINE = re.compile(rf"(?:\\.|[^, \\])+(?:,{_NAME}={_NAME})* {_FIELD}(?:,{_FIELD})* \d+", re.DOTALL)


@pytest.fixture
def url(sink_servers: SinkServers) -> str:
    return f"http://127.0.0.1:{sink_servers[Influxdb].port}"


async def ask(url: str, query: str, database: str = "") -> list[dict[str, Any]]:
    """Return the rows of a query, as mappings."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{url}/query", params={"db": database, "q": query, "epoch": "ms"}
        )
    (result,) = answer.json()["results"]
    assert "error" not in result, result
    return [
        dict(zip(series["columns"], values, strict=True)) | series.get("tags", {})
        for series in result.get("series", [])
        for values in series["values"]
    ]


async def test_points_are_read_back(url: str) -> None:
    """Numbers, texts, truth and nested values are fields; the device is a tag; the time is the
    delivery's. A repeat adds no point. Names with all signs of the protocol come back as they were.
    """
    await ask(url, "CREATE DATABASE points")
    device = 'a,b =c"d\\e é'
    body = {"t": 21.5, "n": 3, "on": True, 'te,x =t"': 'say "a\\b",\nc = d', "in": {"x": [1, None]}}
    config = {"url": url, "database": "points", "measurement": "{device_type}"}
    async with opened("influxdb", **config) as transport:
        for _ in range(2):
            results = await transport.deliver([delivery(1, device, body), delivery(2)])
            assert verdicts(results) == [DELIVERED, DELIVERED]
    rows = await ask(url, "SELECT * FROM thermostat", "points")

    first = {name: value for name, value in rows[0].items() if value is not None}
    assert first == {
        "time": NOW_MS + 1,
        "device": device,
        "t": 21.5,
        "n": 3,
        "on": True,
        'te,x =t"': 'say "a\\b",\nc = d',
        "in.x.0": 1,
    }
    assert len(rows) == 2


async def test_one_bad_point_is_alone(url: str) -> None:
    """A field of another type is refused with InfluxDB's own words; the others are stored. What
    has no field at all is refused before.
    """
    await ask(url, "CREATE DATABASE conflict")
    async with opened("influxdb", url=url, database="conflict") as transport:
        assert verdicts(await transport.deliver([delivery(0, body={"v": 1})])) == [DELIVERED]
        batch = [delivery(n, body={"v": n}) for n in range(1, 9)]
        batch[3] = delivery(4, body={"v": "text"})
        batch[5] = delivery(6, body={"v": None})
        results = await transport.deliver(batch)
    rows = await ask(url, "SELECT v FROM messages", "conflict")

    assert [place for place, one in enumerate(results) if one.verdict is REFUSED] == [3, 5]
    assert "field type conflict" in results[3].message
    assert results[5].reason == "no_fields"
    assert [row["v"] for row in rows] == [0 + 1, 1, 2, 3, 5, 7, 8]


async def test_what_is_wrong_with_the_destination_is_said(url: str) -> None:
    """A database that is not there, and nobody there, pause the destination."""
    async with opened("influxdb", url=url, database="absent") as transport:
        with pytest.raises(RetryableError, match="database not found"):
            await transport.deliver([delivery(0)])
    async with opened("influxdb", url="http://127.0.0.1:1", database="x") as transport:
        with pytest.raises(RetryableError):
            await transport.deliver([delivery(0)])


async def test_a_cut_cable(url: str, sink_servers: SinkServers) -> None:
    """With the connection gone a batch is postponed; repeated, each point is there once."""
    await ask(url, "CREATE DATABASE cable")
    async with Cable(sink_servers[Influxdb].port) as cable:
        address = f"http://127.0.0.1:{cable.port}"
        async with opened("influxdb", url=address, database="cable") as transport:
            await transport.deliver([delivery(0)])
            await cable.cut()
            with pytest.raises(RetryableError):
                await transport.deliver([delivery(0), delivery(1)])
            await cable.mend()
            results = await comes_back(transport, [delivery(0), delivery(1)])
            assert verdicts(results) == [DELIVERED] * 2
    assert len(await ask(url, "SELECT * FROM messages", "cable")) == 2


@asynccontextmanager
async def version_2(status: int = 204) -> AsyncIterator[tuple[str, list[tuple[str, str, str]]]]:
    """A fake of version 2's write address: it refuses what is no line protocol."""
    heard: list[tuple[str, str, str]] = []

    async def write(request: web.Request) -> web.Response:
        text = await request.text()
        heard.append((request.raw_path, request.headers.get("authorization", ""), text))
        bad = [line for line in text.split("\n") if not LINE.fullmatch(line)]
        if bad:
            return web.json_response({"code": "invalid", "message": bad[0]}, status=400)
        return web.Response(status=status, text="" if status == 204 else '{"code":"no"}')

    app = web.Application()
    app.router.add_post("/api/v2/write", write)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", heard
    finally:
        await runner.cleanup()


async def test_version_2() -> None:
    """Bucket and organisation stand in the address, the token in the header; `integers` writes
    whole numbers as such, a tag without a value is left out.
    """
    config = {"bucket": "i ot", "org": "acme", "token": "geheim77", "integers": True}
    tags = {"device": "{device}", "application": "{application_id}", "kind": "{type}"}
    async with (
        version_2() as (url, heard),
        opened("influxdb", url=url, tags=tags, **config) as transport,
    ):
        results = await transport.deliver([delivery(1, body={"n": 5, "t": 1.0}), delivery(2)])
    assert verdicts(results) == [DELIVERED] * 2
    ((path, token, text),) = heard
    assert path == "/api/v2/write?bucket=i+ot&org=acme&precision=ms"
    assert token == "Token geheim77"
    assert text.split("\n") == [
        f"messages,device=dev1,kind=uplink n=5i,t=1.0 {NOW_MS + 1}",
        f"messages,device=dev1,kind=uplink n=2i,é.1=1.5 {NOW_MS + 2}",
    ]


async def test_names_that_would_break_out() -> None:
    """No device, measurement or field can end its place in the line, whatever its signs."""
    origin = Origin(type="uplink", device_type="#a, b=c\\")
    for name in ("x\\", "a b", "a,b=c", "\\,", 'q"', "é", "=", "a\\ "):
        one = delivery(1, name, {name: name, "n": 1.0})
        one = type(one)(one.id, one.tenant, name, "app", NOW_MS, one.body, origin=origin)
        async with (
            version_2() as (url, _),
            opened("influxdb", url=url, bucket="b", measurement="{device_type}") as transport,
        ):
            assert verdicts(await transport.deliver([one])) == [DELIVERED], name


async def test_a_wrong_token_is_the_destinations_fault() -> None:
    """401 pauses the destination; no dead letter is made of a message that is in order."""
    async with (
        version_2(401) as (url, _),
        opened("influxdb", url=url, bucket="b", token="geheim77") as transport,
    ):
        with pytest.raises(RetryableError, match="401") as found:
            await transport.deliver([delivery(1)])
    assert "geheim77" not in str(found.value)
    assert "geheim77" not in repr(made("influxdb", url=url, bucket="b", token="geheim77"))
