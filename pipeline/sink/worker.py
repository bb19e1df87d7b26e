"""All destinations of a worker: one task each, so that a slow or dead one delays only itself.

In: every `delivery.<tenant>.<destination>` that the rulebooks name: their sinks, and one
`downlink-<integration>` for each asynchronous integration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Log
from pipeline.rulebook.book import Integration, Rulebook, Rulebooks, SinkEntry
from pipeline.sink.clock import Clock, MonotonicClock
from pipeline.sink.destination import Destination, Surroundings
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.endings import Ending, downlink_ending, sink_ending
from pipeline.sink.news import DestinationStatus
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Transport, handover_of, transports
from pipeline.topics import downlink_destination

_log = get_logger(__name__)
_Name = tuple[str, str]  # tenant, destination
WayOut = Callable[[Context], Transport]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a destination is to be; equal plans need no restart."""

    kind: str
    config: Any
    make: WayOut
    ending: Ending

    def same_as(self, other: _Plan) -> bool:
        return (self.kind, self.config) == (other.kind, other.config)


class Sinks:
    """Starts and stops destinations as the rulebooks say. All methods run on one loop."""

    def __init__(  # noqa: PLR0917 - wiring names them, in the order of the design
        self,
        log: Log,
        rulebooks: Rulebooks,
        settings: SinkSettings,
        metrics: Registry,
        now_ms: Callable[[], int],
        random: Callable[[], float],
        *,
        clock: Clock | None = None,
        way_out: WayOut | None = None,
    ) -> None:
        """`way_out` takes the place of every destination's transport: a bench sends nothing."""
        self._rulebooks = rulebooks
        self._way_out = way_out
        self._settings = settings
        self._surroundings = Surroundings(
            log, settings, metrics, now_ms, random, clock or MonotonicClock()
        )
        self._running: dict[_Name, tuple[_Plan, Destination]] = {}
        self._changing = asyncio.Lock()
        self._stopped = False
        self._failed: asyncio.Future[BaseException] | None = None

    async def start(self) -> None:
        """Start all destinations; returns before any of them is connected."""
        self._failed = asyncio.get_running_loop().create_future()
        await self.refresh()

    async def refresh(self) -> None:
        """Follow the rulebooks: new destinations start, removed ones stop, changed ones restart.

        A removed destination's records keep their place, and go out when it is there again.
        """
        async with self._changing:
            if self._stopped:
                return
            wanted = _plans(self._rulebooks())
            ended = [
                name
                for name, (plan, _) in self._running.items()
                if name not in wanted or not plan.same_as(wanted[name])
            ]
            await self._stop_all(ended, self._settings.stop_timeout_s)
            for (tenant, destination), plan in wanted.items():
                if (tenant, destination) not in self._running:
                    self._start_one(tenant, destination, plan)

    async def stop(self, timeout_s: float) -> None:
        """Stop all; what is in flight has this long to finish. Nothing that was read is lost."""
        async with self._changing:
            self._stopped = True
            await self._stop_all(list(self._running), timeout_s)

    async def failure(self) -> BaseException:
        """Return when a destination stopped by a bug, with the bug; after `start`."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    def status(self) -> list[DestinationStatus]:
        """Return how each destination does, by name."""
        return [self._running[name][1].status() for name in sorted(self._running)]

    def _start_one(self, tenant: str, name: str, plan: _Plan) -> None:
        context = Context(tenant, name, self._settings, self._surroundings.now_ms)
        transport = (self._way_out or plan.make)(context)
        destination = Destination(tenant, name, transport, plan.ending, self._surroundings)
        self._running[tenant, name] = plan, destination
        destination.start(self._note_failure)
        _log.info("A destination starts.", tenant=tenant, destination=name, kind=plan.kind)

    async def _stop_all(self, names: list[_Name], timeout_s: float) -> None:
        stops = [self._running.pop(name)[1].stop(timeout_s) for name in names]
        await asyncio.gather(*stops)
        for tenant, name in names:
            _log.info("A destination stopped.", tenant=tenant, destination=name)

    def _note_failure(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(error)


def _plans(rulebooks: Any) -> dict[_Name, _Plan]:
    plans: dict[_Name, _Plan] = {}
    for rulebook in rulebooks.values():
        plans |= _plans_of(rulebook)
    return plans


def _plans_of(rulebook: Rulebook) -> dict[_Name, _Plan]:
    plans: dict[_Name, _Plan] = {}
    for entry in rulebook.sinks.values():
        plans[entry.tenant, entry.name] = _sink_plan(entry)
    for integration in rulebook.integrations.values():
        if not integration.synchronous:
            name = downlink_destination(integration.name)
            plans[integration.tenant, name] = _downlink_plan(integration)
    return plans


def _sink_plan(entry: SinkEntry) -> _Plan:
    transport = transports()[entry.transport]
    return _Plan(
        entry.transport, entry.config, lambda context: transport(entry.config, context), sink_ending
    )


def _downlink_plan(integration: Integration) -> _Plan:
    # Where the transport has no way out of its own, the network server's API is called.
    handover = handover_of(integration.transport) or DownlinkTransport
    return _Plan(
        f"downlinks of {integration.dialect.name}",
        (integration.options, integration.connection),
        lambda context: handover(integration, context),
        downlink_ending,
    )
