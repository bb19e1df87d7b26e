"""A plant: an asyncua server that keeps its nodes' history."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import orjson
from asyncua import ua

from pipeline.rulebook.book import Integration
from pipeline.sink.transport import Verdict
from tests.contract.peers.peer import BODY_BYTES, HOSTILE, NOT_UTF8, Peer, Peers, Place
from tests.real.opcua_plant import Plant, plant_integration
from tests.real.servers import free_port
from tests.real.source_work import Process, downlink, handover, until

FIRST = -1


class OpcuaPeer(Peer):
    """The node `n` of the machine `d1` has each message's number, one after the other."""

    acknowledges: ClassVar[str] = "the cursor that is kept with the values"
    limits: ClassVar[dict[str, str]] = {
        "truncated": "a value comes in the protocol's own frames; a server whose frames break off"
        " is a fault that is told, whose test is with the transport",
        "slow": "a value is whole or not there; a server that stalls is left after `keepalive`,"
        " whose test is with the transport",
        "once": "a subscription begins with each node's present value, by whose time it is known",
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._port = free_port()
        self._history = place.folder / "history.db"
        self._written: list[datetime] = []

    async def start(self) -> None:
        self._server = await Plant(self._port, history=self._history).start()
        await self._furnish()
        # What came before the first connection ever is none of ours.
        async with self.serving():
            await until(lambda: self.leases.cursors and self.log.records)
        self.log.records.clear()
        self.log.asked = 0

    async def stop(self) -> None:
        await self._server.stop()

    async def _furnish(self) -> None:
        server = self._server
        self._line = await server.line("Line1")
        device = await self._line.add_object(server.index, "d1")
        own = ua.NodeId(7_000, server.index)  # the server's storage makes a table's name of it
        self._node = await device.add_variable(own, ua.QualifiedName("n", server.index), FIRST)
        await server.server.historize_node_data_change(self._node, period=None, count=10_000)
        # What one machine tells at a time is one message: garbage is another machine's.
        other = await self._line.add_object(server.index, "d2")
        self._text = await server.variable(other, "text", "")
        self._set = await server.variable(device, "set", FIRST)
        for name in HOSTILE:
            await server.variable(await self._line.add_object(server.index, name), "t", 1.0)

    def integration(self) -> Integration:
        return plant_integration(self._port)

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            now = datetime.now(UTC)
            await self._node.write_value(ua.DataValue(ua.Variant(number), SourceTimestamp=now))
            self._written.append(now)
            await asyncio.sleep(0.01)

    async def acknowledged(self) -> int:
        (kept,) = self.leases.cursors.values()
        return sum(written <= datetime.fromisoformat(kept) for written in self._written)

    def numbers(self) -> list[int]:
        bodies = [orjson.loads(body) for body in self.log.bodies()]
        told = [each for body in bodies if body["device"] == "d1" for each in body["values"]]
        return [each["value"] for each in told if each["field"] == "n" and each["value"] >= 0]

    async def cut(self) -> None:
        await self._server.stop()
        self._server = await Plant(self._port, history=self._history, listen=False).start()
        await self._furnish()

    async def mend(self) -> None:
        await self._server.listen()

    async def garbage(self, kind: str, process: Process) -> int:
        match kind:
            case "oversized":
                await self._text.write_value("x" * BODY_BYTES)
                return 1
            case "wrong encoding":
                for code in (ua.StatusCodes.BadDecodingError, ua.StatusCodes.Good):
                    await self._text.write_value(
                        ua.DataValue(ua.Variant(NOT_UTF8.decode(errors="replace")),
                                     ua.StatusCode(code))
                    )  # fmt: skip
                    await asyncio.sleep(0.1)
                return 2
            case _:
                # They are there from the beginning, as machines: some are told, some left out.
                assert "left out" in process.status().note
                return 0

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        heard: list[Any] = []

        class Listening:
            def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
                heard.append(value)

        watching = await self._server.server.create_subscription(10, Listening())
        await watching.subscribe_data_change(self._set, queuesize=100)
        transport = handover(self.integration())
        await transport.open()
        for number in range(count):
            delivery: Any = downlink(number)
            asked = msgspec.structs.replace(delivery.downlink, payload=None, fields={"set": number})
            (result,) = await transport.deliver([msgspec.structs.replace(delivery, downlink=asked)])
            assert result.verdict is Verdict.DELIVERED, result
        await transport.close()
        await until(lambda: len(heard) > count)
        await watching.delete()
        return [bytes([value]) for value in heard if value != FIRST]


PEERS: Peers = {"opcua": OpcuaPeer}
