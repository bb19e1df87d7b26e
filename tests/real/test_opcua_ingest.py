"""Integrations over OPC-UA, against a real server: all types, nothing lost, nothing too early."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from asyncua import ua
from structlog.testing import capture_logs

from pipeline.errors import StorageFullError
from pipeline.integrations.dialect import dialects
from pipeline.model.http import Request
from pipeline.model.uplink import Uplink
from pipeline.sink.transport import Verdict
from tests.real.opcua_plant import Plant, ToldLog, plant, plant_integration, process_of, run
from tests.real.servers import free_port
from tests.real.source_work import HeldLog, downlink, handover, running, until


def test_what_nodes_say_arrives_by_device() -> None:
    """Nodes found by a pattern become one body a device, with fields, names, times, types."""

    async def work() -> None:
        async with plant() as server:
            line = await server.line("Line1")
            press = await line.add_object(server.index, "Press1")
            oven = await line.add_object(server.index, "Oven")
            temperature = await server.variable(press, "Temperature", 21.5)
            await server.variable(press, "Count", 7, ua.VariantType.UInt32)
            await server.variable(oven, "Temperature", 180.0)
            other = await server.line("Office")
            await server.variable(other, "Temperature", 20.0)
            log = ToldLog()
            async with running(process_of(log, plant_integration(server.port))):
                await until(lambda: len(log.records) == 2)
                await temperature.write_value(22.5)
                await until(lambda: len(log.records) == 3)
        first, second, third = log.told()
        assert {first["device"], second["device"]} == {"Press1", "Oven"}
        assert all(body["names"] == {"line": "Line1"} for body in (first, second, third))
        (value,) = third["values"]
        assert (value["field"], value["value"], value["type"]) == ("Temperature", 22.5, "Double")
        assert abs(value["time"] / 1_000 - datetime.now(UTC).timestamp()) < 60
        assert log.records[0].key.startswith("acme/")
        assert log.records[2].key == "acme/Press1"

    run(work)


def uplinks(log: HeldLog) -> list[Uplink]:
    """Return what the dialect reads in all that arrived."""
    dialect = dialects()["opcua"]
    return [
        uplink
        for body in log.bodies()
        for uplink in dialect.read(Request(body), dialect.options(), "{device_id}")
    ]


TYPES: list[tuple[Any, Any, Any]] = [
    (True, ua.VariantType.Boolean, True),
    (-5, ua.VariantType.SByte, -5),
    (2**64 - 1, ua.VariantType.UInt64, 2**64 - 1),
    (1.5, ua.VariantType.Float, 1.5),
    ("Grüße / \u202e", ua.VariantType.String, "Grüße / \u202e"),
    (b"\x00\xff", ua.VariantType.ByteString, "AP8="),
    (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), ua.VariantType.DateTime,
     "2026-01-02T03:04:05.000Z"),
    (UUID(int=1), ua.VariantType.Guid, "00000000-0000-0000-0000-000000000001"),
    (ua.LocalizedText("warm", "en"), ua.VariantType.LocalizedText, "warm"),
    (ua.NodeId("x", 2), ua.VariantType.NodeId, "ns=2;s=x"),
    ([1, 2, 3], ua.VariantType.Int16, [1, 2, 3]),
    ([[1.0, 2.0], [3.0, 4.0]], ua.VariantType.Double, [[1.0, 2.0], [3.0, 4.0]]),
    (float("nan"), ua.VariantType.Double, None),
    (ua.Range(1.0, 2.0), ua.VariantType.ExtensionObject, {"Low": 1.0, "High": 2.0}),
]  # fmt: skip


def test_types_become_json() -> None:
    """Each data type, arrays and structures arrive as JSON; NaN as null with its status."""

    async def work() -> None:
        async with plant() as server:
            line = await server.line("Line1")
            device = await line.add_object(server.index, "d")
            for number, (value, kind, _) in enumerate(TYPES):
                await server.variable(device, f"v{number}", value, kind)
            log = ToldLog()
            async with running(process_of(log, plant_integration(server.port))):
                await until(lambda: log.records)
        (body,) = log.told()
        told = {value["field"]: value for value in body["values"]}
        for number, (_, _, expected) in enumerate(TYPES):
            assert told[f"v{number}"].get("value") == expected, TYPES[number]
        assert told["v12"]["status"] == "NaN"
        (uplink,) = uplinks(log)
        assert uplink.metadata["status"] == {"v12": "NaN"}

    run(work)


def test_bad_quality_is_told() -> None:
    """A value of Bad quality is no field of the uplink; its status is in the metadata."""

    async def work() -> None:
        async with plant() as server:
            device = await (await server.line("Line1")).add_object(server.index, "d")
            good = await server.variable(device, "good", 1.0)
            bad = await server.variable(device, "bad", 2.0)
            log = ToldLog()
            async with running(process_of(log, plant_integration(server.port))):
                await until(lambda: log.records)
                value = ua.DataValue(
                    ua.Variant(3.0), ua.StatusCode(ua.StatusCodes.BadSensorFailure)
                )
                await bad.write_value(value)
                await until(lambda: len(log.values("bad")) == 2)
                await good.write_value(4.0)
                await until(lambda: 4.0 in log.values("good"))
        (troubled,) = [each for each in uplinks(log) if "status" in each.metadata]
        assert troubled.metadata["status"] == {"bad": "BadSensorFailure"}
        assert "bad" not in troubled.fields

    run(work)


def test_a_log_that_fails_holds_back() -> None:
    """A full disk is told, and what came meanwhile is there afterwards."""

    async def work() -> None:
        async with plant() as server:
            device = await (await server.line("Line1")).add_object(server.index, "d")
            count = await server.variable(device, "n", 0)
            log = ToldLog()
            process = process_of(log, plant_integration(server.port))
            async with running(process):
                await until(lambda: log.values("n") == [0])
                log.fail = StorageFullError("no room")
                await count.write_value(1)
                await until(lambda: "no room" in process.status().last_error)
                await count.write_value(2)
                log.fail = None
                await until(lambda: log.values("n") == [0, 1, 2])

    run(work)


def test_a_frozen_server_is_noticed(tmp_path: Path) -> None:
    """A server that says nothing any more counts as lost, told once; when it goes on, so do we."""

    async def work() -> None:
        port = free_port()
        program = [sys.executable, "-m", "tests.real.opcua_plant", str(port)]
        root = Path(__file__).parents[2]
        server = await asyncio.to_thread(subprocess.Popen, program, cwd=root)
        log = ToldLog()
        process = process_of(log, plant_integration(port, connect_timeout="1s"))
        try:
            with capture_logs() as logs:
                async with running(process):
                    await until(lambda: log.records)
                    os.kill(server.pid, signal.SIGSTOP)
                    frozen = asyncio.get_running_loop().time()
                    await until(lambda: process.status().state == "lost")
                    assert asyncio.get_running_loop().time() - frozen < 5
                    await until(lambda: process.status().errors >= 3)
                    os.kill(server.pid, signal.SIGCONT)
                    before = len(log.records)
                    await until(lambda: process.status().state == "connected")
                    await until(lambda: len(log.records) > before)
            told = [each["event"] for each in logs if "not connected" in each["event"]]
            assert len(told) <= 3, "lost, and why each kind of try failed"
        finally:
            server.kill()
            await asyncio.to_thread(server.wait)

    run(work)


GARBAGE: dict[str, list[bytes]] = {
    "closes at once": [],
    "no protocol": [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100],
    "an endless message": [b"ACKF\xff\xff\xff\x7f" + b"\x00" * 100],
    "an error": [b"ERRF\x10\x00\x00\x00\x00\x00\x7d\x80\xff\xff\xff\xff"],
    "half an answer": [b"ACKF\x1c\x00\x00\x00" + b"\x00" * 20, b"OPNF\x40\x00\x00\x00\x01"],
    "random": [bytes(range(256)) * 20],
}


@pytest.mark.parametrize("kind", sorted(GARBAGE))
def test_a_peer_that_speaks_garbage(kind: str) -> None:
    """Whatever listens there, it is a fault that is told and tried again, never ours."""

    async def work() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                for each in GARBAGE[kind]:
                    await reader.read(1_000)
                    writer.write(each)
                    await writer.drain()
            finally:
                writer.close()

        async with await asyncio.start_server(speak, "127.0.0.1", 0) as peer:
            port = peer.sockets[0].getsockname()[1]
            process = process_of(ToldLog(), plant_integration(port, connect_timeout="1s"))
            await process.sources.refresh()
            await until(lambda: process.status().errors >= 2 or process.bugs)
            await process.sources.stop()
            assert not process.bugs

    run(work)


def test_a_full_queue_is_counted() -> None:
    """What the server had no room for is not lost in silence: so many are told of."""

    async def work() -> None:
        async with plant() as server:
            device = await (await server.line("Line1")).add_object(server.index, "d")
            count = await server.variable(device, "n", 0)
            log = ToldLog()
            process = process_of(log, plant_integration(server.port, queue_size=5))
            async with running(process):
                await until(lambda: log.values("n") == [0])
                code = ua.StatusCode(0x0480)  # Good, with the bits that say «overflow»
                await count.write_value(ua.DataValue(ua.Variant(7), code))
                await until(lambda: 7 in log.values("n"))
                assert process.status().passed_over == 1

    run(work)


def test_names_of_a_hostile_server() -> None:
    """Names with separators, wildcards, control characters and of endless length: those that can
    be a device's are, the others are left out and told of; nothing else stops.
    """

    async def work() -> None:
        async with plant() as server:
            line = await server.line("Line1")
            good = ["a/b", "+", "#", "{device_id}", "..", "ü" * 255, "' OR 1=1"]
            bad = ["x\ny", "\u202e", "y" * 300]
            for name in (*good, *bad):
                device = await line.add_object(server.index, name)
                await server.variable(device, "T", 1.0)
            log = ToldLog()
            process = process_of(log, plant_integration(server.port))
            async with running(process):
                await until(lambda: len(log.records) == len(good))
                assert f"{len(bad)} nodes are left out" in process.status().note
        assert sorted(body["device"] for body in log.told()) == sorted(good)

    run(work)


def test_new_nodes_are_found_and_wrong_ones_told() -> None:
    """A node that is not there is told of; the others are watched. Nothing to watch is a fault."""

    async def work() -> None:
        async with plant() as server:
            device = await (await server.line("Line1")).add_object(server.index, "d")
            node = await server.variable(device, "T", 1.0)
            nodes = [
                {"id": "ns=2;s=nowhere", "device": "x", "field": "f"},
                {"id": f"nsu=http://example.com/press;s={node.nodeid.Identifier}",
                 "device": "mine", "field": "t"},
            ]  # fmt: skip
            log = ToldLog()
            process = process_of(log, plant_integration(server.port, nodes=nodes, browse=[]))
            async with running(process):
                await until(lambda: log.records)
                assert "BadNodeIdUnknown" in process.status().note
            assert log.told()[0]["device"] == "mine"
            nothing = process_of(
                ToldLog(),
                plant_integration(server.port, browse=[{"path": "Objects/{device_id}/no"}]),
            )
            await nothing.sources.refresh()
            await until(lambda: nothing.status().errors)
            assert "no node matches" in nothing.status().last_error
            await nothing.sources.stop()

    run(work)


@pytest.mark.timeout(300)  # most of it is the server, which makes them
def test_ten_thousand_nodes() -> None:
    """All are found, watched and told of, each once; one that changes is told of alone."""

    async def work() -> None:
        async with plant() as server:
            line = await server.line("Line1")
            for number in range(100):
                device = await line.add_object(server.index, f"m{number}")
                for each in range(100):
                    last = await server.variable(device, f"v{number}-{each}", float(each))
            log = ToldLog()
            made = plant_integration(server.port, publishing_interval="500ms", keepalive="30s",
                                     connect_timeout="60s")  # fmt: skip
            async with running(process_of(log, made)):
                await until(lambda: sum(len(b["values"]) for b in log.told()) >= 10_000, 200)
                await last.write_value(-1.0)
                await until(lambda: log.values("v99-99")[-1] == -1.0, 30)
        told = [value["field"] for body in log.told() for value in body["values"]]
        assert len(told) == 10_001
        assert len(set(told)) == 10_000

    run(work)


@asynccontextmanager
async def writing(server: Plant, **connection: Any) -> AsyncIterator[Any]:
    """Yield a function that hands over one downlink of fields and returns its result."""
    transport = handover(plant_integration(server.port, **connection))
    await transport.open()

    async def write(device: str, **fields: Any) -> Any:
        delivery: Any = downlink(1, device)
        asked = msgspec.structs.replace(delivery.downlink, payload=None, fields=fields)
        (result,) = await transport.deliver([msgspec.structs.replace(delivery, downlink=asked)])
        return result

    try:
        yield write
    finally:
        await transport.close()


def test_downlinks_are_writes() -> None:
    """Fields are written with the nodes' own types, and the server's status is the outcome; a
    wrong value, an unknown field or one that may not be written is refused, whole.
    """

    async def work() -> None:
        async with plant() as server:
            device = await (await server.line("Line1")).add_object(server.index, "d")
            kinds = {"b": (True, ua.VariantType.Boolean), "i": (1, ua.VariantType.Int16),
                     "f": (1.0, ua.VariantType.Float), "s": ("x", ua.VariantType.String),
                     "l": ([1, 2], ua.VariantType.UInt32)}  # fmt: skip
            nodes = {
                name: await server.variable(device, name, value, kind)
                for name, (value, kind) in kinds.items()
            }
            await server.variable(device, "fixed", 1.0)
            await (await device.get_child(f"{server.index}:fixed")).set_read_only()
            async with writing(server) as write:
                result = await write("d", b=False, i=-7, f=2.5, s="ü", l=[3, 4, 5])
                assert result.verdict is Verdict.DELIVERED, result
                said = {name: await node.read_value() for name, node in nodes.items()}
                assert said == {"b": False, "i": -7, "f": 2.5, "s": "ü", "l": [3, 4, 5]}
                kind = (await nodes["i"].read_data_value()).Value.VariantType
                assert kind is ua.VariantType.Int16
                for fields, reason in [
                    ({"i": 70_000, "b": True}, "field"),
                    ({"no such": 1}, "no_link"),
                    ({"fixed": 2.0}, "write"),
                ]:
                    result = await write("d", **fields)
                    assert (result.verdict, result.reason) == (Verdict.REFUSED, reason)
                assert await nodes["b"].read_value() is False
                assert result.detail["status"] == {"fixed": "BadUserAccessDenied"}
                assert (await write("other", i=1)).reason == "no_link"

    run(work)


def test_downlinks_wait_for_their_server() -> None:
    """While the server is away a downlink is postponed; it is written when the server is back, in
    order.
    """

    async def work() -> None:
        port = free_port()
        server = await Plant(port).start()
        await server.variable(
            await (await server.line("Line1")).add_object(server.index, "d"), "n", 0
        )
        async with writing(server) as write:
            assert (await write("d", n=1)).verdict is Verdict.DELIVERED
            await server.stop()
            result = await write("d", n=2)
            assert result.verdict is Verdict.POSTPONED, result
            assert (await write("d", n=2)).verdict is Verdict.POSTPONED
            again = await Plant(port).start()
            node = await again.variable(
                await (await again.line("Line1")).add_object(again.index, "d"), "n", 0
            )
            for number in (2, 3):
                assert (await write("d", n=number)).verdict is Verdict.DELIVERED
            assert await node.read_value() == 3
            await again.stop()

    run(work)


@pytest.mark.parametrize("mode", ["sign", "sign_and_encrypt"])
def test_security_with_certificates_of_both_sides(tmp_path: Path, mode: str) -> None:
    """An encrypted session with a user's name: in with the right password and the server's own
    certificate, out without.
    """

    async def work() -> None:
        server = await Plant(free_port(), security=tmp_path).start()
        device = await (await server.line("Line1")).add_object(server.index, "d")
        await server.variable(device, "T", 1.0)
        security = {"mode": mode, "certificate_file": str(tmp_path / "client.pem"),
                    "key_file": str(tmp_path / "client.key"),
                    "server_certificate_file": str(tmp_path / "server.pem")}  # fmt: skip
        good = {"user": "funicular", "password": "right", "security": security}
        try:
            log = ToldLog()
            process = process_of(log, plant_integration(server.port, **good))
            async with running(process):
                await until(lambda: log.records)
            wrong = {**security, "server_certificate_file": str(tmp_path / "client.pem")}
            for bad, fault in [
                ({**good, "password": "wrong"}, "BadUserAccessDenied"),
                ({**good, "security": wrong}, "the connection to the server failed"),
                ({"user": "funicular", "password": "right"}, "the connection to the server failed"),
                ({**good, "security": {**security, "key_file": "/nowhere.key"}}, "nowhere"),
            ]:
                process = process_of(ToldLog(), plant_integration(server.port, **bad))
                await process.sources.refresh()
                await until(lambda each=process: each.status().errors)
                assert fault in process.status().last_error
                assert "right" not in process.status().last_error
                await process.sources.stop()
        finally:
            await server.stop()

    run(work)


def test_a_user_shows_a_certificate(tmp_path: Path) -> None:
    """A user whom the server knows by a certificate comes in without a password, and may write; one
    whom it does not know is refused, and that is said.
    """

    async def work() -> None:
        server = await Plant(free_port(), security=tmp_path).start()
        device = await (await server.line("Line1")).add_object(server.index, "d")
        node = await server.variable(device, "T", 1.0)
        security = {"certificate_file": str(tmp_path / "client.pem"),
                    "key_file": str(tmp_path / "client.key"),
                    "server_certificate_file": str(tmp_path / "server.pem")}  # fmt: skip
        user = {"certificate_file": str(tmp_path / "operator.pem"),
                "key_file": str(tmp_path / "operator.key")}  # fmt: skip
        try:
            log = ToldLog()
            made = plant_integration(server.port, security=security, user_certificate=user)
            async with running(process_of(log, made)):
                await until(lambda: log.records)
            async with writing(server, security=security, user_certificate=user) as write:
                assert (await write("d", T=2.0)).verdict is Verdict.DELIVERED
            assert await node.read_value() == 2.0
            stranger = {**security}
            del stranger["server_certificate_file"]
            for bad, fault in [
                (stranger, "BadUserAccessDenied"),
                ({**user, "key_file": "/nowhere.key"}, "nowhere"),
            ]:
                made = plant_integration(server.port, security=security, user_certificate=bad)
                process = process_of(ToldLog(), made)
                await process.sources.refresh()
                await until(lambda each=process: each.status().errors)
                assert fault in process.status().last_error
                await process.sources.stop()
        finally:
            await server.stop()

    run(work)
