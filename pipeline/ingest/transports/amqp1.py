"""The source over AMQP 1.0: reads an address, hands over, settles what is durable.

In: the messages of a queue or a subscription, accepted after the log has them, in the order of
arrival; what was not, the other side sends again. Of an event hub: those of each partition, from
where the last worker was; the place is kept in the same step as the messages, so that none comes
twice. Nobody refuses a message here: what is no AMQP message becomes a dead letter, and so does
what the dialect cannot read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipeline.clients.amqp1 import Arrival, Connection, Management, ServerError, connected
from pipeline.errors import MessageError
from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.logs import get_logger
from pipeline.model.http import Request
from pipeline.rulebook.connections.amqp1_server import Amqp1SourceConfig, EventHub

from .amqp1_message import read, request_of

_LOCK_BYTES = 16  # a lock's token is a UUID
_LOCKS_MAX = 1_000  # that one request renews
_log = get_logger(__name__)


class Amqp1Source:
    """See `source.Source`."""

    name = "amqp1"
    Config = Amqp1SourceConfig

    def __init__(self, config: Amqp1SourceConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._integration = context.integration
        self._places: dict[str, str] = {}  # of an event hub: partition → offset
        self._held: list[bytes] = []  # the tags of what is handed over and not settled

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`."""
        config, integration = self._config, self._integration
        worker = f"-{self._context.worker}" if config.share and self._context.worker else ""
        container = config.container_of(integration.tenant, integration.name) + worker
        try:
            async with connected(config, container) as connection:
                if config.event_hub is not None:
                    health.connected(await self._read_hub(connection, config.event_hub, inlet))
                else:
                    await connection.receiver("", config.address, credit=config.credit)
                    health.connected()
                async with self._renewing(connection):
                    await self._read(connection, inlet)
        except ServerError as error:
            raise SourceError(error.message) from None

    async def _read_hub(self, connection: Connection, hub: EventHub, inlet: Inlet) -> str:
        """Begin to read each partition where we were."""
        address = self._config.address
        partitions = hub.partitions or await Management(connection, "$management").partitions(
            address
        )
        kept = await inlet.cursor()
        self._places = dict(kept["offsets"]) if isinstance(kept, dict) else {}
        # One worker has all; more credit than this in sum would only be memory.
        credit = max(1, self._config.credit // max(1, len(partitions)))
        for partition in partitions:
            await connection.receiver(
                partition,
                f"{address}/ConsumerGroups/{hub.consumer_group}/Partitions/{partition}",
                credit=credit,
                selector=_after(self._places.get(partition), hub.start),
            )
        fresh = [partition for partition in partitions if partition not in self._places]
        return f"partitions {', '.join(fresh)} begin at their {hub.start}" if fresh else ""

    async def _read(self, connection: Connection, inlet: Inlet) -> None:
        most = self._context.batch_max
        while True:
            batch = [await self._next(connection)]
            while len(batch) < most and connection.line:
                batch.append(await connection.arrived())
            if self._config.lock_renewal is not None:
                self._held = [arrival.tag for arrival in batch]
            await self._hand_over(batch, inlet)
            self._held.clear()
            connection.accept(batch)

    async def _next(self, connection: Connection) -> Arrival:
        silence_s = self._config.silence_max
        try:
            async with asyncio.timeout(silence_s):
                return await connection.arrived()
        except TimeoutError:
            raise SourceError(f"no message for {silence_s:g} s (`silence_max`)") from None

    async def _hand_over(self, batch: list[Arrival], inlet: Inlet) -> None:
        requests: list[Request] = []
        other = 0
        places = dict(self._places)
        for arrival in batch:
            receiver = arrival.receiver
            try:
                if not arrival.whole:
                    limit = self._config.message_bytes_max
                    said = f"the message has more than {limit} bytes (`message_bytes_max`)"
                    raise MessageError(said, code="body_length")
                made = read(arrival.data, receiver.address, receiver.key)
            except MessageError as error:
                beginning = arrival.data[: self._integration.body_bytes_max]
                await inlet.bury(Request(body=beginning), error.code, error.message)
                continue
            if receiver.key and made.offset:
                places[receiver.key] = made.offset
            request = request_of(made, self._integration, self._config.topic)
            if request is None:
                other += 1
            else:
                requests.append(request)
        await inlet.take(requests, self._cursor(places))
        self._places = places
        if other:
            inlet.pass_over(other, "messages whose topic says nothing of a device")

    def _cursor(self, places: dict[str, str]) -> Any:
        if self._config.event_hub is None or places == self._places:
            return None
        return {"offsets": places}

    @asynccontextmanager
    async def _renewing(self, connection: Connection) -> AsyncIterator[None]:
        """Renew the locks of what the log has not taken yet, while the block lasts."""
        self._held.clear()
        every_s = self._config.lock_renewal
        if every_s is None:
            yield
            return
        renewal = asyncio.ensure_future(self._renew(connection, every_s))
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    async def _renew(self, connection: Connection, every_s: float) -> None:
        management = Management(connection, f"{self._config.address}/$management")
        trouble = ""
        while True:
            await asyncio.sleep(every_s)
            tags = [*self._held, *(each.tag for each in connection.line)]
            locks = [tag for tag in tags if len(tag) == _LOCK_BYTES][:_LOCKS_MAX]
            try:
                if locks:
                    await management.renew(locks)
            except ServerError as error:
                # The service sends the messages again, once their locks end.
                if trouble != error.message:
                    _log.warning("locks are not renewed", error=error.message)
                trouble = error.message


def _after(offset: str | None, start: str) -> str:
    """Return the selector of what comes after an offset."""
    if offset is None:
        offset = "@latest" if start == "latest" else "-1"
    quoted = offset.replace("'", "''")
    return f"amqp.annotation.x-opt-offset > '{quoted}'"


SOURCE = Amqp1Source
