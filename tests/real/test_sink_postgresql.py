"""The sink `postgresql` against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pipeline.errors import RetryableError
from tests.real.servers import Certificates
from tests.real.sink_servers import Postgresql, SinkServers
from tests.real.sink_work import (
    DELIVERED,
    NOW_MS,
    REFUSED,
    Cable,
    comes_back,
    deliveries,
    delivery,
    made,
    opened,
    verdicts,
)


def url(port: int, database: str = "postgres") -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{database}"


@pytest.fixture
def port(sink_servers: SinkServers) -> int:
    return sink_servers[Postgresql].port


@pytest.fixture
async def database(port: int, request: pytest.FixtureRequest) -> AsyncIterator[asyncpg.Connection]:
    """A database of the test's own, named as the test."""
    name = request.node.name[:60]
    server = await asyncpg.connect(url(port))
    await server.execute(f'CREATE DATABASE "{name}"')
    await server.close()
    connection = await asyncpg.connect(url(port, name))
    yield connection
    await connection.close()


def config(database: asyncpg.Connection, **more: Any) -> dict[str, Any]:
    parameters = database._params
    return {"url": url(database._addr[1], parameters.database), **more}


async def test_rows_are_written_once(database: asyncpg.Connection) -> None:
    """A batch is rows with time, id, device and body; a repeat of it adds none."""
    async with opened("postgresql", **config(database)) as transport:
        for _ in range(2):
            assert verdicts(await transport.deliver(deliveries(250))) == [DELIVERED] * 250
    rows = await database.fetch("SELECT * FROM messages ORDER BY time, id")

    assert len(rows) == 250
    first = rows[1]
    assert (first["id"], first["device"]) == ("d1", "dev1")
    assert round(first["time"].timestamp() * 1_000) == NOW_MS + 1
    assert json.loads(first["body"]) == {"n": 1, "é": [None, 1.5]}


async def test_the_table_is_made_for_them(database: asyncpg.Connection) -> None:
    """The table has a primary key by which repeats are known, and an index by device; two workers
    that start together make it once.
    """
    await database.execute("CREATE SCHEMA iot")
    transports = [made("postgresql", **config(database, table="iot.up")) for _ in range(4)]
    await asyncio.gather(*(transport.open() for transport in transports))
    for transport in transports:
        await transport.close()

    found = await database.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'iot'")
    texts = sorted(row["indexdef"].partition("USING")[2] for row in found)
    assert texts == [' btree ("time", id)', ' btree (device, "time" DESC)']


async def test_a_hypertable_where_timescaledb_is_there(database: asyncpg.Connection) -> None:
    """Where the database has `create_hypertable` it is called for the new table, once. (Debian has
    no TimescaleDB: a function of that name, with its arguments, stands in.)
    """
    await database.execute("CREATE TABLE calls (relation text, by text, width interval)")
    await database.execute(
        "CREATE FUNCTION create_hypertable(relation regclass, time_column_name name,"
        " chunk_time_interval interval DEFAULT NULL) RETURNS void LANGUAGE sql AS"
        " $$ INSERT INTO calls VALUES (relation::text, time_column_name, chunk_time_interval) $$"
    )
    for _ in range(2):
        async with opened("postgresql", **config(database, hypertable="6h")):
            pass

    (row,) = await database.fetch("SELECT relation, by, width::text FROM calls")
    assert tuple(row) == ("messages", "time", "06:00:00")


async def test_a_row_that_the_database_refuses_is_alone(database: asyncpg.Connection) -> None:
    """A body that jsonb cannot hold (the character NUL) is refused with the database's words; the
    rest of its batch is written.
    """
    batch = deliveries(20)
    batch[7] = delivery(7, body={"text": "a\0b"})
    async with opened("postgresql", **config(database)) as transport:
        results = await transport.deliver(batch)

    assert [place for place, one in enumerate(results) if one.verdict is REFUSED] == [7]
    assert results[7].reason == "row"
    assert "unsupported Unicode escape sequence" in results[7].message
    assert await database.fetchval("SELECT count(*) FROM messages") == 19


async def test_too_large_is_refused_before_it_is_sent(database: asyncpg.Connection) -> None:
    """What is over `bytes_max` is the message's fault."""
    async with opened("postgresql", **config(database, bytes_max=100)) as transport:
        results = await transport.deliver([delivery(0, body={"t": "x" * 200}), delivery(1)])

    assert verdicts(results) == [REFUSED, DELIVERED]
    assert results[0].reason == "too_large"


async def test_a_cut_cable(database: asyncpg.Connection, port: int) -> None:
    """With the connection gone a batch is postponed whole; later each row is there once."""
    async with Cable(port) as cable:
        address = config(database)["url"].replace(str(port), str(cable.port))
        async with opened("postgresql", url=address) as transport:
            await transport.deliver(deliveries(5))
            await cable.cut()
            with pytest.raises(RetryableError):
                await transport.deliver(deliveries(10))
            await cable.mend()
            assert verdicts(await comes_back(transport, deliveries(10))) == [DELIVERED] * 10

    assert await database.fetchval("SELECT count(*) FROM messages") == 10


async def test_a_killed_server_comes_back() -> None:
    """A database that is killed and started again has all that was delivered before and after."""
    server = Postgresql().start()
    try:
        async with opened("postgresql", url=url(server.port)) as transport:
            await transport.deliver(deliveries(5))
            server.stop()
            with pytest.raises(RetryableError):
                await transport.deliver(deliveries(10))
            server.start()
            assert verdicts(await comes_back(transport, deliveries(10))) == [DELIVERED] * 10
        connection = await asyncpg.connect(url(server.port))
        assert await connection.fetchval("SELECT count(*) FROM messages") == 10
        await connection.close()
    finally:
        server.remove()


async def test_a_database_that_stands_still(database: asyncpg.Connection) -> None:
    """A table that somebody else has locked costs the timeout, and no more."""
    async with opened("postgresql", **config(database, timeout=0.5)) as transport:
        await transport.deliver([delivery(0)])
        async with database.transaction():
            await database.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(RetryableError, match="did not answer in time"):
                await transport.deliver([delivery(1)])
        assert verdicts(await comes_back(transport, [delivery(1)])) == [DELIVERED]


async def test_what_is_wrong_with_the_destination_is_said(database: asyncpg.Connection) -> None:
    """A table that is not there, a wrong database, nobody there: RetryableError, in words that
    hold no password.
    """
    async with opened("postgresql", **config(database, create=False, table="none")) as transport:
        with pytest.raises(RetryableError, match='relation "none" does not exist'):
            await transport.deliver([delivery(0)])
    for address in ("127.0.0.1:1/x", f"127.0.0.1:{database._addr[1]}/nope"):
        with pytest.raises(RetryableError) as found:
            await made("postgresql", url=f"postgresql://postgres:geheim77@{address}").open()
        assert "geheim77" not in str(found.value)


async def test_tls_with_our_own_certificate(tmp_path: Path) -> None:
    """Over TLS with a CA and a client certificate of one's own; without it it is refused."""
    certificates = Certificates(tmp_path)
    server = Postgresql(tls=certificates.folder).start()
    try:
        own = {
            "ca_file": certificates.path("ca.pem"),
            "certificate_file": certificates.path("client.pem"),
            "key_file": certificates.path("client.key"),
        }
        async with opened("postgresql", url=url(server.port), tls=own) as transport:
            assert verdicts(await transport.deliver([delivery(1)])) == [DELIVERED]
        for tls in ({"ca_file": own["ca_file"]}, {}, None):
            with pytest.raises(RetryableError):
                await made("postgresql", url=url(server.port), tls=tls).open()
    finally:
        server.remove()
