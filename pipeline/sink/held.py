"""A connection that a transport makes when it first needs it, and anew once it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Held(Generic[Made]):
    """One connection of those that share it; who asks while it is being made waits for it.

    `make`: what connects when it is entered, and disconnects when it is left. `is_lost`: whether
    a connection is of no more use; without it only `close` says so.
    """

    def __init__(
        self,
        make: Callable[[], AbstractAsyncContextManager[Made]],
        is_lost: Callable[[Made], bool] = lambda _: False,
    ) -> None:
        self._make = make
        self._is_lost = is_lost
        self._making = asyncio.Lock()
        self._open: tuple[Made, AsyncExitStack] | None = None

    async def get(self) -> Made:
        """Return the connection. Raises what `make` does where there is none to be had."""
        async with self._making:
            if self._open is not None and not self._is_lost(self._open[0]):
                return self._open[0]
            await self.close()
            async with AsyncExitStack() as making:
                made = await making.enter_async_context(self._make())
                self._open = made, making.pop_all()
            return made

    async def close(self) -> None:
        """Disconnect; the next `get` connects again."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened[1].aclose()
