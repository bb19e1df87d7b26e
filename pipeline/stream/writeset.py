"""What is handed to the committer: one set is written whole or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from pipeline.stream.rows import Chunk

Purpose = Literal["append", "stage", "reader"]
"""Who writes. It says how much of the room is for it: an append stops at `log_bytes_max`; a stage
may use the reserve; a reader's commit frees more than it takes and is only stopped by the disk."""


class Move(NamedTuple):
    """A consumer group's new position: the next offset to read. It never goes back."""

    topic: str
    group: str
    next: int
    now_ms: int = 0
    from_end: bool = False


class Waiter(Protocol):
    """Who waits for the commit."""

    def finish(self, error: BaseException | None) -> None:
        """Be told, in the committer's thread: written (None), or why not."""
        ...


class WriteSet:
    """Records, a position, and one stage's state and timers, to be committed in one step."""

    __slots__ = (
        "chunks", "forgotten", "move", "purpose", "records", "size", "state_deleted", "state_put",
        "timers_deleted", "timers_put", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        purpose: Purpose,
        chunks: Sequence[Chunk] = (),
        move: Move | None = None,
    ) -> None:
        self.purpose: Purpose = purpose
        self.chunks = chunks
        self.move = move
        self.forgotten: tuple[str, str] | None = None  # topic and group to remove
        self.waiter: Waiter | None = None
        self.records = self.size = 0
        for chunk in chunks:
            self.records += chunk.count
            self.size += len(chunk.body)
        self.state_put: Sequence[tuple[str, str, str, bytes]] = ()
        self.state_deleted: Sequence[tuple[str, str, str]] = ()
        self.timers_put: Sequence[tuple[str, str, str, int, bytes]] = ()
        self.timers_deleted: Sequence[tuple[str, str, str]] = ()

    def change_state(self, stage: str, changes: Mapping[tuple[str, str], Any]) -> None:
        """Add what a stage changed: (key, part) → the new value, None to delete it."""
        self.state_put = [
            (stage, key, part, orjson.dumps((key, part, value)))
            for (key, part), value in changes.items()
            if value is not None
        ]
        self.state_deleted = [
            (stage, key, part) for (key, part), value in changes.items() if value is None
        ]
        self.size += sum(len(row[3]) for row in self.state_put)

    def change_timers(
        self, stage: str, changes: Mapping[tuple[str, str], tuple[int, Any] | None]
    ) -> None:
        """Add the timers that a stage set, or took back (None); those that fired are among them."""
        self.timers_put = [
            (stage, key, name, timer[0], orjson.dumps(timer[1]))
            for (key, name), timer in changes.items()
            if timer is not None
        ]
        self.timers_deleted = [
            (stage, key, name) for (key, name), timer in changes.items() if timer is None
        ]
        self.size += sum(len(row[4]) for row in self.timers_put)


class ThreadWaiter:
    """Lets a thread wait for its commit."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None

    def finish(self, error: BaseException | None) -> None:
        """Be told."""
        self._error = error
        self._done.set()

    def wait(self) -> None:
        """Block until it is written; raise why it was not."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class LoopWaiter:
    """Lets a coroutine wait for its commit; the committer wakes each loop once a commit."""

    __slots__ = ("future", "loop", "wakes")

    def __init__(self, loop: asyncio.AbstractEventLoop, wakes: LoopWakes) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.wakes = wakes

    def finish(self, error: BaseException | None) -> None:
        """Be told; the loop hears of it with the next `LoopWakes.send`."""
        self.wakes.add(self.loop, self.future, error)


class LoopWakes:
    """Collects what asyncio loops are to be told, so that each is woken once a commit."""

    def __init__(self) -> None:
        self._by_loop: dict[
            asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], BaseException | None]]
        ] = {}

    def add(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[None],
        error: BaseException | None = None,
    ) -> None:
        """Note that a future of this loop is done."""
        found = self._by_loop.get(loop)
        if found is None:
            self._by_loop[loop] = [(future, error)]
        else:
            found.append((future, error))

    def send(self) -> None:
        """Wake the loops. A loop that was closed has nobody left who waits."""
        by_loop, self._by_loop = self._by_loop, {}
        for loop, futures in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, futures)
            except RuntimeError:
                if not loop.is_closed():
                    raise


def _settle(futures: list[tuple[asyncio.Future[None], BaseException | None]]) -> None:
    for future, error in futures:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
