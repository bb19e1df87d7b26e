"""Asks a service over AMQP 1.0 by requests and replies, as Azure's do at `$management`: which
partitions an event hub has, and to hold the locks of messages longer.

Formats: «AMQP 1.0 in Azure Service Bus: request-response-based operations», and the same of Event
Hubs (`READ`, type `com.microsoft:eventhub`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from .arrivals import Line, ServerError
from .connection import Connection

PARTITIONS_MAX = 1_024
REPLY_S = 15.0
_REPLIES = 10  # that may come at a time


class Management:
    """The requests of one node of a connection, one after the other."""

    def __init__(self, connection: Connection, node: str) -> None:
        self._connection = connection
        self._node = node
        self._one_at_a_time = asyncio.Lock()
        self._replies = Line()
        self._reply_to = ""

    async def partitions(self, hub: str) -> tuple[str, ...]:
        """Return an event hub's partitions. ServerError: it does not say them."""
        properties = {"operation": "READ", "name": hub, "type": "com.microsoft:eventhub"}
        answer = await self._ask(properties, {})
        found = answer.get("partition_ids") if isinstance(answer, dict) else None
        listed = getattr(found, "elements", found)
        if not isinstance(listed, list | tuple) or not listed:
            raise ServerError(
                f"the server does not say which partitions `{hub}` has: name them under"
                " `event_hub: partitions`"
            )
        return tuple(str(each) for each in listed)[:PARTITIONS_MAX]

    async def renew(self, locks: Sequence[bytes]) -> None:
        """Have messages locked longer; `locks` are the tags of their deliveries. ServerError: the
        service does not do it.
        """
        from proton import UNDESCRIBED, Array, Data  # noqa: PLC0415 - an extra

        tokens: list[Any] = [UUID(bytes_le=lock) for lock in locks]
        undescribed: Any = UNDESCRIBED
        body = {"lock-tokens": Array(undescribed, Data.UUID, *tokens)}
        await self._ask({"operation": "com.microsoft:renew-lock"}, body)

    async def _ask(self, properties: dict[str, Any], body: Any) -> Any:
        from proton import Message  # noqa: PLC0415 - an extra

        connection = self._connection
        async with self._one_at_a_time:
            if not self._reply_to:
                reply_to = connection.name()
                await connection.receiver(
                    reply_to, self._node, credit=_REPLIES, target=reply_to, line=self._replies
                )
                self._reply_to = reply_to
            number = connection.name()
            message = Message(body=body, properties=properties, reply_to=self._reply_to, id=number)
            outcome = await connection.send(self._node, message.encode())
            if not outcome.accepted:
                raise ServerError(f"the server refuses a request: {outcome.said}")
            answer = await self._answer(number)
        said = answer.properties or {}
        status = said.get("statusCode", said.get("status-code", 0))
        if not isinstance(status, int) or not 200 <= status < 300:
            why = said.get("statusDescription", said.get("status-description", ""))
            raise ServerError(f"the server refuses a request ({status}): {str(why)[:200]}")
        return answer.body

    async def _answer(self, number: str) -> Any:
        from proton import Message, MessageException  # noqa: PLC0415 - an extra

        try:
            async with asyncio.timeout(REPLY_S):
                while True:
                    arrival = await self._connection.arrived(self._replies)
                    self._connection.accept([arrival])
                    answer = Message()
                    answer.decode(arrival.data)
                    if answer.correlation_id == number:  # else: that of a request given up
                        return answer
        except TimeoutError:
            raise ServerError("the server did not answer a request in time") from None
        except MessageException as error:
            raise ServerError(f"the server's answer cannot be read: {error}") from None
