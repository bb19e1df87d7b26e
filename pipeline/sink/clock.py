"""The time that retries go by: monotonic, so that a jump of the wall clock delays nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, and the one way in which this room waits. Tests have one that jumps."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        """Return when the event is set, or after `timeout_s` (None: only by the event)."""
        ...


class MonotonicClock:
    """The real one."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        """Wait on the running loop."""
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
