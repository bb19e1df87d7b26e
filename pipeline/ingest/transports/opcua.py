"""The source over OPC-UA: watches nodes, and hands over what they say, a request a device and
notification.

In: notifications of one subscription, each acknowledged to the server after the log has it; until
then the next is not asked for, and the server keeps `queue_size` values of each node. Out: bodies
of the dialect `opcua`. After a connection that broke, and after a restart, what was missed is read
of the server's history, where it keeps one, before anything new; of other nodes the present value
is told.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.integrations.opcua import Body, Value
from pipeline.logs import get_logger
from pipeline.model.http import Request
from pipeline.rulebook.connections.opcua_server import OpcuaSourceConfig

if TYPE_CHECKING:
    from pipeline.clients.opcua.nodes import Node
    from pipeline.clients.opcua.session import Session
    from pipeline.clients.opcua.subscription import Said

VALUES_MAX = 500  # of one request, so that it stays below `body_bytes_max`
# Notifications that said all: the one that waited for the history, and the next.
_SETTLED_AFTER = 2
_HEADERS = {"content-type": "application/json"}
_AHEAD = timedelta(minutes=1)
_log = get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class OpcuaSource:
    """See `source.Source`. What it remembers of a connection outlives it, and not the process: then
    the cursor tells up to when all is durable.
    """

    name = "opcua"
    Config = OpcuaSourceConfig

    def __init__(self, config: OpcuaSourceConfig, context: Context) -> None:
        self._config = config
        self._context = context
        integration = context.integration
        self._who = f"funicular-{integration.tenant}-{integration.name}"
        self._last: dict[str, datetime] = {}  # by node: the time of what was taken last

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`."""
        from pipeline.clients.opcua.session import (  # noqa: PLC0415 - an extra
            ServerError,
            connected,
        )

        try:
            async with connected(self._config, self._who) as session:
                await _Visit(self._config, self._context, session, inlet, self._last).run(health)
        except ServerError as error:
            raise SourceError(error.message) from None


class _Visit:
    """One connection, from its beginning to its end."""

    def __init__(
        self,
        config: OpcuaSourceConfig,
        context: Context,
        session: Session,
        inlet: Inlet,
        last: dict[str, datetime],
    ) -> None:
        from pipeline.clients.opcua.subscription import Subscription  # noqa: PLC0415 - an extra

        self._config = config
        self._batch_max = context.batch_max
        self._session = session
        self._inlet = inlet
        self._last = last
        # What was taken before anything new: a new subscription begins with present values.
        self._before: dict[str, datetime] = {}
        self._caught_up: set[str] = set()  # nodes whose history was read
        self._settling = _SETTLED_AFTER
        self._open = asyncio.Event()
        self._took = asyncio.Event()
        self._subscription = Subscription(session, config, self._take, self._unreadable)
        self._known: set[str] = set()

    async def run(self, health: Health) -> None:
        """Serve until the connection breaks. ServerError, and what the inlet raises."""
        from pipeline.clients.opcua.nodes import discover  # noqa: PLC0415 - an extra

        found = await discover(self._session, self._config)
        nodes = found.read()
        if not nodes:
            raise SourceError("no node matches `nodes` and `browse`: is it this server?")
        await self._subscription.open()
        refused = await self._watch(nodes)
        health.connected("; ".join(filter(None, (found.note(), refused))))
        await self._catch_up(nodes)
        self._before = dict(self._last)
        self._open.set()
        await self._stay()

    async def _stay(self) -> None:
        """Wait for whatever ends it; look for new nodes meanwhile."""
        config = self._config
        watches = [asyncio.ensure_future(self._subscription.quiet())]
        if config.silence_max is not None:
            watches.append(asyncio.ensure_future(self._silence(config.silence_max)))
        if config.browse_again is not None and config.browse:
            watches.append(asyncio.ensure_future(self._browse_again(config.browse_again)))
        ends = [self._session.lost, self._subscription.ended, *watches]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    async def _silence(self, most_s: float) -> None:
        while True:
            self._took.clear()
            try:
                async with asyncio.timeout(most_s):
                    await self._took.wait()
            except TimeoutError:
                raise SourceError(f"no value for {most_s:g} s (`silence_max`)") from None

    async def _browse_again(self, every_s: float) -> None:
        from pipeline.clients.opcua.nodes import discover  # noqa: PLC0415 - an extra

        while True:
            await asyncio.sleep(every_s)
            found = await discover(self._session, self._config)
            new = [node for node in found.read() if node.key not in self._known]
            if new:
                refused = await self._watch(new)
                _log.info("nodes are new", nodes=len(new), refused=refused)

    async def _watch(self, nodes: Sequence[Node]) -> str:
        keys = [node.key for node in nodes]
        self._known.update(keys)
        return await self._subscription.watch(nodes)

    def _unreadable(self, count: int) -> None:
        self._inlet.pass_over(count, "notifications that cannot be read")

    async def _catch_up(self, nodes: Sequence[Node]) -> None:
        """Hand over what the nodes' history has since what was taken last."""
        from pipeline.clients.opcua.history import kept, missed, server_time  # noqa: PLC0415

        if not self._config.history:
            return
        begun = _moment(await self._inlet.cursor())
        known = [node for node in nodes if node.key in self._last or begun is not None]
        known = await kept(self._session, known) if known else []
        if not known:
            return
        now = await server_time(self._session)
        # A source's clock may be ahead of the server's, which itself may say its time now and then.
        until = now + _AHEAD
        earliest = now - timedelta(seconds=self._config.history_max)
        since = {node.key: max(self._last.get(node.key, begun or now), earliest)
                 for node in known}  # fmt: skip
        async for page in missed(self._session, known, since, until):
            await self._hand_over(page, None)
        self._caught_up.update(node.key for node in known)

    async def _take(self, said: Sequence[Said], published: datetime | None) -> None:
        """Hand over one notification; what was told before the connection broke is left out."""
        await self._open.wait()
        new = [each for each in said if not self._again(*each)]
        cursor = None if published is None else published.isoformat()
        await self._hand_over(new, cursor)
        if published is not None and self._settling:
            self._settling -= 1

    def _again(self, node: Node, value: Any) -> bool:
        """Return whether a value was taken already: as the last one before the connection broke, or
        of the history that was read. Once all that waited at the server has come, none was: a
        source's clock may go back.
        """
        from pipeline.clients.opcua.values import overflowed, time_of  # noqa: PLC0415 - an extra

        if overflowed(value):
            self._inlet.pass_over(1, "values that the server's queue had no room for (queue_size)")
        if not self._settling:
            return False
        before, time = self._before.get(node.key), time_of(value)
        if before is None or time is None:
            return False
        return time == before or (node.key in self._caught_up and time < before)

    async def _hand_over(self, said: Sequence[Said], cursor: Any) -> None:
        from pipeline.clients.opcua.values import time_of  # noqa: PLC0415 - an extra

        requests = _requests(said)
        for first in range(0, len(requests), self._batch_max):
            last = first + self._batch_max >= len(requests)
            batch = requests[first : first + self._batch_max]
            await self._inlet.take(batch, cursor if last else None)
        if said:
            self._took.set()
        for node, value in said:
            time = time_of(value)
            if time is not None:
                self._last[node.key] = time


def _requests(said: Sequence[Said]) -> list[Request]:
    """Return a request for each device, in the order in which they were first told of."""
    from pipeline.clients.opcua.values import value_of  # noqa: PLC0415 - an extra

    # Nodes of one device may stand on other ways down, with other names.
    values: defaultdict[tuple[str, tuple[tuple[str, str], ...]], list[Value]] = defaultdict(list)
    for node, value in said:
        key = node.device, tuple(node.names.items())
        values[key].append(value_of(node.field, node.key, value))
    return [
        Request(body=_encode(Body(device, told[first : first + VALUES_MAX], dict(names))),
                headers=_HEADERS)
        for (device, names), told in values.items()
        for first in range(0, len(told), VALUES_MAX)
    ]  # fmt: skip


def _moment(cursor: Any) -> datetime | None:
    """Return a cursor's time; None: it says none."""
    if not isinstance(cursor, str):
        return None
    try:
        time = datetime.fromisoformat(cursor)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


SOURCE = OpcuaSource
