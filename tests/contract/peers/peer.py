"""The port of a peer: what the suite of transports asks of the other side of each.

A peer of a transport is in `peers/<transport>.py`, under `PEERS`: a label → what makes it. It is
real: a broker, a server or a device's client, started for the test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import orjson

from pipeline.ingest.source import Outside
from pipeline.rulebook.book import Integration
from pipeline.sink.transport import Verdict
from tests.real.sink_servers import SinkServers
from tests.real.source_work import HeldLog, Leases, Process, downlink, handover, running

KINDS = ("truncated", "oversized", "slow", "wrong encoding", "hostile names")
"""The garbage that every door is shown."""
BODY_BYTES = 20_000
"""Of a message that is too long: an integration of these tests takes half of it."""
NOT_UTF8 = b"\xff\xfe\x00" * 50
TRUNCATED = b'{"n": 1, "device": "d'
HOSTILE = ("\u202e", "ü" * 200, "a/b/../c", "x" * 300, "' OR 1=1")


@dataclass
class Place:
    """Where a peer may put things, and the servers that tests share."""

    servers: SinkServers
    folder: Path
    log: HeldLog = field(default_factory=HeldLog)


class Peer(ABC):
    """One test's other side. Messages are of the device `d1`, with a number `n`."""

    acknowledges: ClassVar[str] = ""
    """How the peer learns that it need not repeat a message; empty: it does not (see `limits`)."""
    connects: ClassVar[bool] = True
    """Whether Funicular connects to the peer, so that it notices that the peer is away."""
    limits: ClassVar[Mapping[str, str]] = {}
    """Claims and kinds of garbage that are not for this transport → why, in a sentence. Claims:
    `acknowledged`, `downlinks`, `once` (what was acknowledged comes again)."""

    def __init__(self, place: Place) -> None:
        self.log = place.log
        self.place = place
        self.leases = Leases(place.log)

    @abstractmethod
    async def start(self) -> None:
        """Be there."""

    async def stop(self) -> None:  # noqa: B027 - a peer whose server is shared has nothing to end
        """Be gone. What is shared between tests may stay."""

    @abstractmethod
    def integration(self) -> Integration:
        """Return the integration of this peer; the same each time."""

    @abstractmethod
    async def send(self, *numbers: int) -> None:
        """Send a message for each number, in order. Does not wait until one is acknowledged; goes
        on while the connection is cut, as far as the peer can keep messages.
        """

    async def acknowledged(self) -> int:
        """Return how many of all that was sent need not be repeated; asked while nothing runs."""
        raise NotImplementedError

    @abstractmethod
    async def cut(self) -> None:
        """Break the connection; nobody can connect."""

    @abstractmethod
    async def mend(self) -> None:
        """Let connections be made again."""

    @abstractmethod
    async def garbage(self, kind: str, process: Process) -> int:
        """Bring a kind of garbage to the door. Returns how much of it must have left a trace: a
        record, a dead letter, a count. What the peer was told or shown itself it checks here.
        """

    async def downlinks(self, process: Process, count: int) -> list[bytes]:
        """Hand so many downlinks over, of the bytes 0, 1, …; return what the peer heard."""
        raise NotImplementedError

    def numbers(self) -> list[int]:
        """Return the numbers that arrived, in order."""
        found = []
        for body in self.log.bodies():
            try:
                found.append(orjson.loads(body)["n"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue  # It was garbage.
        return found

    def process(self) -> Process:
        """Return a worker over the test's log."""
        return Process(self.log, self.integration(), outside=Outside(self.leases))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Process]:
        """Run a worker, connected, while the block lasts; then it is gone, as if it had died."""
        process = self.process()
        async with running(process):
            yield process

    def traces(self, process: Process) -> int:
        """Return of how many messages and faults a worker has told so far."""
        status = process.status()
        return int(status.messages + status.passed_over + status.errors)


Peers = dict[str, Callable[[Place], Peer]]


def message(number: int) -> bytes:
    """Return the body of a message."""
    return orjson.dumps({"device": "d1", "n": number})


async def handed_over(integration: Integration, count: int, **link: str) -> None:
    """Send downlinks by an integration's own way out."""
    transport = handover(integration)
    await transport.open()
    try:
        for number in range(count):
            (result,) = await transport.deliver([downlink(number, **link)])
            assert result.verdict is Verdict.DELIVERED, result
    finally:
        await transport.close()


def payload_of(body: bytes) -> bytes:
    """Return the bytes of a downlink as the dialects `http` and `mqtt` write it."""
    return b64decode(orjson.loads(body)["payload"])


def bytes_of(count: int) -> Sequence[bytes]:
    """Return the payloads of so many downlinks."""
    return [bytes([number]) for number in range(count)]


def only(process: Process) -> Any:
    """Return the connection of a worker's one integration."""
    (found,) = process.book.values()
    return found.connection
