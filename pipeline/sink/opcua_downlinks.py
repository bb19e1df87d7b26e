"""The transport of downlinks of integrations over OPC-UA: a downlink's fields are written to the
device's nodes.

In: `delivery.<tenant>.downlink-<integration>`. Out: one write of all its fields; the server's
status of each is the outcome. A field that is Bad by the message's fault makes it refused, by the
server's (the machine is out of reach) postponed; fields that were written stay written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration
from pipeline.sink.batches import one_by_one, refused
from pipeline.sink.held import Held
from pipeline.sink.transport import DELIVERED, Context, Result, Verdict

if TYPE_CHECKING:
    from pipeline.clients.opcua.nodes import Found, Node
    from pipeline.clients.opcua.session import Session
    from pipeline.clients.opcua.writes import Kinds

BROWSE_AGAIN_S = 30.0  # for a device or field that was not there: new ones appear
_NO_LINK = Link()
# What passes: the server, or what is behind it, is at fault.
_PASSING = frozenset({
    "BadCommunicationError", "BadNoCommunication", "BadNotConnected", "BadDeviceFailure",
    "BadResourceUnavailable", "BadServerHalted", "BadServerTooBusy", "BadShutdown", "BadTimeout",
    "BadTooManyOperations", "BadOutOfMemory", "BadOutOfService", "BadInvalidState",
    "BadWaitingForInitialData", "BadRequestTimeout", "BadInternalError",
})  # fmt: skip


class OpcuaDownlinkTransport:
    """See `transport.Transport`. One connection; one downlink after the other."""

    def __init__(self, integration: Integration, context: Context) -> None:
        settings = context.settings
        self._integration = integration
        self._dialect: Any = integration.dialect  # `integrations.opcua`: `check` saw to it
        self._config = integration.connection
        self.deliveries_max = 1
        self.concurrency = settings.downlink_concurrency
        self.retry = settings.downlink_retry
        self._connection = Held(self._connected, lambda connection: connection.session.lost.done())

    async def open(self) -> None:
        """Connect, and find the nodes. ServerError: not now."""
        await self._connection.get()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Connection]:
        from pipeline.clients.opcua.session import connected  # noqa: PLC0415 - an extra

        integration = self._integration
        who = f"funicular-{integration.tenant}-{integration.name}-down-{token_hex(4)}"
        async with connected(self._config, who) as session:
            connection = _Connection(self._config, session)
            await connection.discover()
            yield connection

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Write each, in order; past one that is postponed, none is tried."""
        return await one_by_one(batch, self._hand_over)

    async def _hand_over(self, delivery: Delivery) -> Result:
        from pipeline.clients.opcua.session import ServerError  # noqa: PLC0415 - an extra

        downlink = delivery.downlink
        if downlink is None:
            return Result(Verdict.REFUSED, "no_downlink", "the delivery holds no downlink")
        began = False
        try:
            values = self._dialect.writes(downlink, self._integration.options)
            device = (delivery.link or _NO_LINK).device_id or downlink.device
            connection = await self._connection.get()
            nodes = await connection.nodes_of(device, values)
            began = True
            return _judged(await connection.write(values, nodes))
        except MessageError as error:
            return refused(error)
        except ServerError as error:
            await self.close()  # the next try begins with a new connection
            return Result(Verdict.POSTPONED, "server", error.message, uncertain=began)


class _Connection:
    """A session, and the nodes that it may write."""

    def __init__(self, config: Any, session: Session) -> None:
        from pipeline.clients.opcua.writes import Kinds  # noqa: PLC0415 - an extra

        self.session = session
        self._config = config
        self._kinds: Kinds = Kinds(session)
        self._found: Found | None = None
        self._found_s = 0.0

    async def discover(self) -> None:
        """Find the nodes. ServerError: not now."""
        from pipeline.clients.opcua.nodes import discover  # noqa: PLC0415 - an extra

        self._found = await discover(self.session, self._config)
        self._found_s = asyncio.get_running_loop().time()

    async def nodes_of(self, device: str, fields: Mapping[str, Any]) -> dict[str, Node]:
        """Return the node of each field. MessageError `no_link`: the device has none."""
        missing = self._missing(device, fields)
        if missing and asyncio.get_running_loop().time() - self._found_s > BROWSE_AGAIN_S:
            await self.discover()
            missing = self._missing(device, fields)
        if missing:
            raise MessageError(
                f"the server has no node to write for {', '.join(missing)} of the device"
                f" {device[:100]!r}",
                code="no_link",
                fields=missing,
            )
        written = self._written
        return {field: written[device, field] for field in fields}

    async def write(self, values: Mapping[str, Any], nodes: Mapping[str, Node]) -> dict[str, str]:
        """Write; return each field's status."""
        from pipeline.clients.opcua.writes import write  # noqa: PLC0415 - an extra

        return await write(self.session, self._kinds, values, nodes)

    def _missing(self, device: str, fields: Mapping[str, Any]) -> list[str]:
        return [field for field in fields if (device, field) not in self._written]

    @property
    def _written(self) -> dict[tuple[str, str], Node]:
        return {} if self._found is None else self._found.written


def _judged(status: Mapping[str, str]) -> Result:
    """Return the verdict on a write by what the server said of each field."""
    bad = {field: said for field, said in status.items() if said.startswith("Bad")}
    detail = {"status": dict(status)}
    if not bad:
        return Result(Verdict.DELIVERED, detail=detail) if _telling(status) else DELIVERED
    told = ", ".join(f"{field}: {said}" for field, said in bad.items())
    message = f"the server did not write all of it ({told})"
    if all(said in _PASSING for said in bad.values()):
        return Result(Verdict.POSTPONED, next(iter(bad.values())), message, detail, uncertain=True)
    return Result(Verdict.REFUSED, "write", message, detail)


def _telling(status: Mapping[str, str]) -> bool:
    """Return whether a field's status says more than that all is well."""
    return any(said != "Good" for said in status.values())


HANDOVER = OpcuaDownlinkTransport
