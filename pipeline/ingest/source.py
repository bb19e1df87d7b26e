"""The port of a source, and how the folder is scanned for them.

A source is a class named `SOURCE` in `ingest/transports/<transport>.py`: the connection by which
one integration's messages come where they are not posted to the door. It neither retries nor waits:
`sources.py` does. What it brings goes through the Inlet and is acknowledged after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Protocol

from pipeline.errors import RetryableError
from pipeline.model.http import Call, Request, Response
from pipeline.ports import Leases
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.scan import Parts

from .door import Answer
from .windows import Leaving, Window


class SourceError(RetryableError):
    """The connection could not be made, or broke. The text holds no secret."""

    code = "connection"


class Inlet(Protocol):
    """Where messages go."""

    async def take(
        self, requests: Sequence[Request], cursor: Any = None, ways_back: Sequence[str] = ()
    ) -> None:
        """Return when all are durable, in this order. Waits as long as the log takes nothing, so
        that whoever calls it takes no more from the other side.

        `cursor`, where there is one, is kept in the same step. For connections of one owner alone
        (`ConnectionConfig.one_owner`), of which LeaseLostError says: another worker has the
        connection now, and nothing was taken. `ways_back`: of each request, by which window its
        device can be reached (`Window.way_back`; empty: by none).
        """
        ...

    async def cursor(self) -> Any:
        """Return the cursor that was taken last, at whatever worker; None: none was.
        RetryableError: not known now.
        """
        ...

    def pass_over(self, count: int, reason: str) -> None:
        """Count messages that are none of a device's: of another topic, or retained."""
        ...

    def window(self, hand_over: Callable[[Leaving], None], lasts_s: float) -> Window:
        """Open a way back to devices (`ConnectionConfig.stays_open`): see `windows.Window`.
        Close it when it leads nowhere any more.
        """
        ...

    async def announce(self, device_id: str, way_back: str) -> None:
        """Tell of a window to a device that has said nothing yet; returns when that is durable.

        MessageError: no device can have that name.
        """
        ...

    async def ask(self, request: Request) -> Answer:
        """Take a message of somebody who waits for an answer, and return it: as the door's, with
        the downlink where the integration is synchronous, or why it was refused.
        """
        ...

    async def bury(self, request: Request, reason: str, message: str) -> None:
        """Make a dead letter of what is no message, such as the beginning of one that is too
        long; returns when it is durable.
        """
        ...


class Health(Protocol):
    """Whom a source tells how it does."""

    def connected(self, note: str = "") -> None:
        """It is connected and subscribed; `note` is what the user should know."""
        ...


class Fetcher(Protocol):
    """Asks web addresses, where the operator allows it; for one connection."""

    async def __call__(self, call: Call) -> Response:
        """Return a 2xx answer, its body whole. RetryableError: there was none, and when to ask
        again where the other side said so; the text holds no secret. MessageError: the request
        cannot be made.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Fetching(Protocol):
    """Makes a Fetcher."""

    def __call__(self, *, timeout_s: float, bytes_max: int, tls: TlsConfig | None) -> Fetcher:
        """`bytes_max` of an answer's body; `tls`: certificates of one's own."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What the sources of a process need besides its log. `leases` None: there is no other worker,
    and no cursor is kept.
    """

    leases: Leases | None = None
    fetching: Fetching | None = None


ALONE = Outside()


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Context:
    """What a source is given besides its config. `worker` tells this process from others and is
    the same after a restart. `now_ms` is the wall clock; `fetching` is how web addresses are
    asked, where this process may.
    """

    integration: Integration
    worker: str
    batch_max: int
    now_ms: Callable[[], int] = _wall_clock_ms
    fetching: Fetching | None = None


class Source(Protocol):
    """One integration's connection; one object an integration."""

    async def run(self, inlet: Inlet, health: Health) -> None:
        """Connect, and hand messages over until cancelled.

        Nothing is acknowledged to the other side before `Inlet.take` has returned. SourceError:
        the connection could not be made, or broke; it is run again later. Anything else raised
        is a bug.
        """
        ...


class SourceType(Protocol):
    """The class of a source: what the folder's files and entry points give."""

    name: ClassVar[str]
    """As in `transport:` of an integration's YAML; the file's name."""
    Config: ClassVar[type[ConnectionConfig]]
    """The integration's `connection:`."""

    def __call__(self, config: Any, context: Context) -> Source:
        """Return a source that does nothing before `run`."""
        ...


_FOUND = ("pipeline.ingest.transports", "SOURCE", "funicular.sources")


@cache
def sources() -> Mapping[str, SourceType]:
    """Return all sources by name: the files of this folder and the plug-ins of others."""
    return Parts(*_FOUND)


@cache
def connection_models() -> Mapping[str, type[ConnectionConfig]]:
    """Return each source's Config by name, for the rulebook's catalogue."""
    return Parts(*_FOUND, of=attrgetter("Config"))
