"""What comes over AMQP 1.0 and what becomes of what is sent, as the client gives them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import RetryableError


class ServerError(RetryableError):
    """The server cannot be reached, refused something, or broke off. The text holds no secret."""

    code = "broker"


@dataclass(slots=True)
class Arrival:
    """A message as it came. `whole` False: it is longer than allowed, and `data` its beginning."""

    receiver: Receiver
    data: bytes
    whole: bool
    delivery: Any

    @property
    def tag(self) -> bytes:
        """The delivery's tag: of Azure Service Bus the token of the message's lock."""
        import cproton  # noqa: PLC0415 - an extra

        # `Delivery.tag` takes a tag for UTF-8, which a token is not.
        found = cproton.lib.pn_delivery_tag(self.delivery._impl)  # noqa: SLF001
        return bytes(cproton.ffi.unpack(found.start, found.size))


@dataclass(slots=True)
class Receiver:
    """One address that is read. `key` is what its opener calls it."""

    key: str
    address: str
    link: Any
    line: Line
    buffer: bytearray = field(default_factory=bytearray)


class Line:
    """What came and was not taken yet; bounded by the credit of those who write to it."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._arrivals)

    def __iter__(self) -> Iterator[Arrival]:
        return iter(self._arrivals)

    def put(self, arrival: Arrival) -> None:
        """Add one."""
        self._arrivals.append(arrival)
        self._some.set()

    async def get(self) -> Arrival:
        """Return the next one; waits for it."""
        while not self._arrivals:
            self._some.clear()
            await self._some.wait()
        return self._arrivals.popleft()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the other side said of a message that was sent: it took it, or why not. `again`: it
    may take it another time.
    """

    accepted: bool
    again: bool = False
    said: str = ""
