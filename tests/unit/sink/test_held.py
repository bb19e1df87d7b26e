"""A connection that is made when it is first needed, and anew once it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.sink.held import Held


class Line:
    """What is connected: `log` says what was done, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.count = 0
        self.lost: set[int] = set()
        self.refuses = False

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[int]:
        self.count += 1
        number = self.count
        await asyncio.sleep(0)
        if self.refuses:
            raise ConnectionError("refused")
        self.log.append(f"made {number}")
        try:
            yield number
        finally:
            self.log.append(f"left {number}")

    def held(self) -> Held[int]:
        return Held(self.connect, self.lost.__contains__)


async def test_all_who_ask_share_one() -> None:
    """It is made once, also where several ask at a time."""
    line = Line()
    held = line.held()

    assert await asyncio.gather(held.get(), held.get(), held.get()) == [1, 1, 1]
    await held.close()
    assert line.log == ["made 1", "left 1"]


async def test_a_lost_one_is_left_before_another_is_made() -> None:
    """What is of no more use is ended; so is what somebody has closed."""
    line = Line()
    held = line.held()
    await held.get()
    line.lost.add(1)

    assert await held.get() == 2
    await held.close()
    assert await held.get() == 3
    await held.close()
    assert line.log == ["made 1", "left 1", "made 2", "left 2", "made 3", "left 3"]


async def test_one_that_cannot_be_made_is_tried_again() -> None:
    """The fault reaches who asked, and the next one who asks connects."""
    line = Line()
    held = line.held()
    line.refuses = True
    with pytest.raises(ConnectionError):
        await held.get()
    line.refuses = False

    assert await held.get() == 2
    await held.close()
