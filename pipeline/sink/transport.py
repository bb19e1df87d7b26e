"""The port of a transport, and how the folder is scanned for them.

A transport is a class named `TRANSPORT` in `sink/<name>.py`: it takes deliveries of one
destination and says what became of each. It neither retries nor waits: `destination.py` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Protocol

import msgspec
from pydantic import BaseModel

from pipeline.model.delivery import Delivery
from pipeline.rulebook.book import Integration
from pipeline.scan import Parts
from pipeline.sink.retry import RetryConfig
from pipeline.sink.settings import SinkSettings


class Verdict(StrEnum):
    """What became of a delivery, by who is at fault."""

    DELIVERED = "delivered"  # the destination has it, for good
    REFUSED = "refused"  # the message's fault: it is never tried again
    POSTPONED = "postponed"  # the destination's fault: it pauses, the message keeps its place


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict on one delivery. Texts hold no secret: they go to logs and to `dead.letter`.

    `reason` is a short code, `message` a sentence, `detail` JSON that helps whoever mends it.
    `pause_s`: the destination asked for so long without requests; None: it said nothing.
    `stop`: it wants none at all, until somebody looks after it.
    `uncertain`: it may have arrived all the same (a timeout, a 5xx). `answer` is JSON: what the
    destination said to a delivery that is `awaited`.
    """

    verdict: Verdict
    reason: str = ""
    message: str = ""
    detail: dict[str, Any] = {}
    pause_s: float | None = None
    uncertain: bool = False
    answer: Any = None
    stop: bool = False


DELIVERED = Result(Verdict.DELIVERED)


@dataclass(frozen=True, slots=True)
class Context:
    """What a transport is given besides its config."""

    tenant: str
    destination: str
    settings: SinkSettings
    now_ms: Callable[[], int]


class Transport(Protocol):
    """One destination's way out; one object a destination."""

    deliveries_max: int
    """The most that one call of `deliver` takes."""
    concurrency: int
    """How many calls of `deliver` may be under way; never two with deliveries of one device."""
    retry: RetryConfig

    async def open(self) -> None:
        """Make it ready; again is fine. RetryableError, OSError: not now, it is tried again."""
        ...

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Try each once and return one result a delivery, in order; called after `open`.

        Returns only when what is DELIVERED needs no repeat after a crash.
        Does not deliver a later message of a device whose earlier one it postponed.
        RetryableError: all of the batch is postponed. Anything else raised is a bug.
        May be cancelled at any point: then the batch is tried again some day.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files; again is fine, and so is `open` afterwards."""
        ...


class TransportType(Protocol):
    """The class of a transport: what the folder's files and entry points give."""

    name: ClassVar[str]
    """As in `transport:` of a sink's YAML; the file's name."""
    Config: ClassVar[type[BaseModel]]
    """The rest of the sink's YAML: frozen, refuses unknown keys; its docstring shows the YAML."""

    def __call__(self, config: Any, context: Context) -> Transport:
        """Return a transport that does nothing before `open`."""
        ...


_FOUND = ("pipeline.sink", "TRANSPORT", "funicular.sinks")


@cache
def transports() -> Mapping[str, TransportType]:
    """Return all transports by name: the files of this folder and the plug-ins of others."""
    return Parts(*_FOUND)


Handover = Callable[[Integration, Context], Transport]
"""Returns a transport, not yet open, by which one integration's downlinks leave: `HANDOVER` of a
file of this folder, `<transport>_downlinks.py`."""


@cache
def _handovers() -> Mapping[str, Handover]:
    return Parts("pipeline.sink", "HANDOVER")


def handover_of(transport: str) -> Handover | None:
    """Return how downlinks of integrations of a transport leave; None: by HTTP."""
    return _handovers().get(f"{transport}_downlinks")


@cache
def config_models() -> Mapping[str, type[BaseModel]]:
    """Return each transport's Config by name, for the rulebook's catalogue."""
    return Parts(*_FOUND, of=attrgetter("Config"))
