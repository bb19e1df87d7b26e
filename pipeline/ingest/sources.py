"""All sources of a process: a task for each integration that is not posted to the door.

In: the rulebooks' integrations with a `transport`. A connection that breaks is made again, later
and later; how each does is in `status`. One that only one worker may have (`one_owner`) runs while
its lease is ours; then another worker's runs, and this one stands by.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.errors import LeaseLostError, RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Lease, Log
from pipeline.rulebook.book import Integration, Rulebooks

from .door import Door, Gate
from .inlet import DoorInlet
from .settings import IngestSettings
from .source import ALONE, Context, Outside, Source, sources
from .source_health import IntegrationStatus, SourceHealth

_log = get_logger(__name__)
_Name = tuple[str, str]  # tenant, integration


@dataclass(slots=True)
class _Running:
    integration: Integration
    health: SourceHealth
    task: asyncio.Task[None]


class Sources:
    """Starts and stops sources as the rulebooks say. All methods run on one loop."""

    def __init__(
        self,
        door: Door,
        log: Log,
        rulebooks: Rulebooks,
        settings: IngestSettings,
        *,
        now_ms: Callable[[], int],
        on_bug: Callable[[BaseException], None],
        spread: Callable[[], float] = random.random,
        outside: Outside = ALONE,
    ) -> None:
        """`on_bug` is called when a source ended by a fault of ours; `spread` gives 0 to 1, so
        that many workers do not come back at one moment.
        """
        self._door = door
        self._log = log
        self._rulebooks = rulebooks
        self._settings = settings
        self._now_ms = now_ms
        self._on_bug = on_bug
        self._spread = spread
        self._leases = outside.leases
        self._fetching = outside.fetching
        self._running: dict[_Name, _Running] = {}
        self._changing = asyncio.Lock()
        self._stopped = False

    async def refresh(self) -> None:
        """Follow the rulebooks: new sources start, removed ones stop, changed ones start anew."""
        async with self._changing:
            if self._stopped:
                return
            wanted = {
                (integration.tenant, integration.name): integration
                for book in self._rulebooks().values()
                for integration in book.integrations.values()
                if integration.connection is not None
            }
            ended = [
                name
                for name, running in self._running.items()
                if name not in wanted or not _same(running.integration, wanted[name])
            ]
            await self._stop(ended)
            for name, integration in wanted.items():
                if name not in self._running:
                    self._running[name] = self._start(integration)

    async def stop(self) -> None:
        """End all connections. What was not acknowledged, the other side sends again."""
        async with self._changing:
            self._stopped = True
            await self._stop(list(self._running))

    def status(self) -> list[IntegrationStatus]:
        """Return how each source does, by name."""
        return [self._status(self._running[name]) for name in sorted(self._running)]

    def _status(self, running: _Running) -> IntegrationStatus:
        found = running.health.status()
        if found.state != "standby" or self._leases is None:
            return found
        if trouble := self._leases.trouble:
            return msgspec.structs.replace(found, state="lost", last_error=trouble)
        owner = self._leases.owner(_lease_name(running.integration))
        note = f"worker {owner} has it" if owner else "it is not known which worker has it"
        return msgspec.structs.replace(found, note=note)

    def flush(self, metrics: Registry) -> None:
        """Move the counts into the registry."""
        metrics.clear("funicular_integration_connected")
        for running in self._running.values():
            running.health.flush(metrics)

    def _start(self, integration: Integration) -> _Running:
        settings = self._settings
        health = SourceHealth(
            integration.tenant,
            integration.name,
            integration.dialect.name,
            integration.transport,
            self._now_ms,
        )
        context = Context(
            integration, settings.worker, settings.source_batch_max, self._now_ms, self._fetching
        )
        source = sources()[integration.transport](integration.connection, context)
        inlet = DoorInlet(
            self._door, Gate(integration), self._log, health, settings, now_ms=self._now_ms
        )
        if self._leases is not None and integration.connection.one_owner:
            work = self._take_turns(source, inlet, health, _lease_name(integration))
        else:
            work = self._keep(source, inlet, health)
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return _Running(integration, health, task)

    async def _take_turns(
        self, source: Source, inlet: DoorInlet, health: SourceHealth, name: str
    ) -> None:
        """Run a source for ever, but only while its lease is ours."""
        assert self._leases is not None
        while True:
            health.standby()
            async with self._leases.hold(name) as lease:
                inlet.lease = lease
                with suppress(LeaseLostError):  # found while it took messages
                    await _until_lost(lease, self._keep(source, inlet, health))

    async def _keep(self, source: Source, inlet: DoorInlet, health: SourceHealth) -> None:
        """Run a source for ever."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        pause_s = settings.source_pause_s
        while True:
            begun_s = loop.time()
            health.connecting()
            try:
                await source.run(inlet, health)
            except LeaseLostError:
                raise
            except RetryableError as error:
                health.broke(error.message)
                asked_s = error.retry_after_s or 0.0
            else:
                health.broke("the other side closed the connection")
                asked_s = 0.0
            if loop.time() - begun_s > settings.source_steady_s:
                pause_s = settings.source_pause_s
            await asyncio.sleep(max(asked_s, pause_s * (0.5 + self._spread() / 2)))
            pause_s = min(2 * pause_s, settings.source_pause_s_max)

    async def _stop(self, names: list[_Name]) -> None:
        ended = [self._running.pop(name) for name in names]
        for running in ended:
            running.task.cancel()
        if ended:
            tasks = [running.task for running in ended]
            await asyncio.wait(tasks, timeout=self._settings.stop_timeout_s)
        for running in ended:
            running.health.stopped()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("a source died", exc_info=error)
            self._on_bug(error)


def _same(one: Integration, other: Integration) -> bool:
    """Return whether an edit changed nothing that a source was made of."""
    return one == other


def _lease_name(integration: Integration) -> str:
    return f"{integration.tenant}/{integration.name}"


async def _until_lost(lease: Lease, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it at once when the lease is lost; return when it has ended."""
    running = asyncio.ensure_future(work)
    lost = asyncio.ensure_future(lease.lost())
    try:
        await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        running.cancel()
        lost.cancel()
        await asyncio.gather(running, lost, return_exceptions=True)
