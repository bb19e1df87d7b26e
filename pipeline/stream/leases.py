"""What leases on all logs share: writes that are not left half-way, and the lack of any.

In: a write of a source that may be cancelled at any point. Out: the same, which then has ended
before the cancellation goes on, so that who reads the cursor next reads what it wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pipeline.ports import Lease

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns. It is never cancelled: a caller who is, is so after its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at: nobody is left who could be told
        raise


class NoLeases:
    """Leases that nobody ever has, and why; `ports.Leases`."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Lease]:  # noqa: ARG002 - the port's shape
        """Never give it."""
        lease: Lease = await asyncio.get_running_loop().create_future()
        yield lease

    def owner(self, name: str) -> str:  # noqa: ARG002 - the port's shape
        """Return nobody."""
        return ""

    async def close(self) -> None:
        """Nothing is held."""
