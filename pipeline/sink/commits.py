"""Writes what came of deliveries: outcomes, and the position below which all is done.

Nothing is forgotten before it is written, and no position passes a delivery whose outcome is not
written with it or before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.model.record import Outgoing
from pipeline.ports import Log, Reader
from pipeline.sink.clock import Clock
from pipeline.sink.lanes import Lanes
from pipeline.sink.settings import SinkSettings

_log = get_logger(__name__)


class Commits:
    """The writing side of one destination. Outcomes go at once, positions alone at intervals."""

    def __init__(
        self,
        *,
        log: Log,
        reader: Reader,
        lanes: Lanes,
        settings: SinkSettings,
        clock: Clock,
        random: Callable[[], float],
        name: dict[str, Any],
    ) -> None:
        self._log = log
        self._reader = reader
        self._lanes = lanes
        self._settings = settings
        self._clock = clock
        self._random = random
        self._name = name
        self._outcomes: list[Outgoing] = []
        self._writing = 0
        self._dirty = asyncio.Event()  # something is to be written
        self._urgent = asyncio.Event()  # and it does not wait for the interval
        self._stopping = asyncio.Event()  # what the log does not take now is left to the next run
        self._last = False
        self.written = asyncio.Event()  # set after each write: there may be room to read more

    def __len__(self) -> int:
        """Return how many outcomes are not written yet."""
        return len(self._outcomes) + self._writing

    def leave(self, outcomes: Sequence[Outgoing]) -> None:
        """Take outcomes to be written; to be called in one step with marking them as done."""
        if outcomes:
            self._outcomes += outcomes
            self._urgent.set()
        self._dirty.set()

    def hurry(self) -> None:
        """Stop waiting for the interval, and for a log that takes nothing."""
        self._stopping.set()
        self._urgent.set()
        self._dirty.set()

    async def settle(self) -> None:
        """Return when all that is done so far is written; for ever, while the log takes nothing."""
        while self or self._lanes.has_settled():
            self._urgent.set()
            self._dirty.set()
            self.written.clear()
            await self.written.wait()

    def finish(self) -> None:
        """Let `run` return after one more write; nothing more will be left."""
        self._last = True
        self.hurry()

    async def run(self) -> None:
        """Write until `finish`."""
        while True:
            await self._clock.wait(self._dirty, None)
            if not self._outcomes and not self._last:
                await self._clock.wait(self._urgent, self._settings.commit_interval_s)
            last = self._last
            self._dirty.clear()
            self._urgent.clear()
            written = await self._write()
            self.written.set()
            if last or not written:
                return

    async def _write(self) -> bool:
        """Write the outcomes and the position in one step; the outcomes alone if it stands.

        False: the log takes nothing, and this run ends. Then nothing more may be written, since a
        later position would pass these outcomes; all of it is repeated by the next run.
        """
        offsets = self._lanes.settled()
        outcomes, self._outcomes = self._outcomes, []
        self._writing = len(outcomes)
        attempts = 0
        while True:
            try:
                if offsets:
                    await self._reader.commit(offsets, outcomes)
                elif outcomes:
                    await self._log.append(outcomes)
            except RetryableError as error:
                attempts += 1
                if attempts == 1:
                    _log.error(
                        "The log takes no results; they are kept and tried again.",
                        **self._name,
                        error=error.message,
                    )
                if self._stopping.is_set():
                    return False
                delay_s = self._settings.open_retry.delay_s(attempts, self._random())
                await self._clock.wait(self._stopping, delay_s)
            else:
                self._writing = 0
                return True
