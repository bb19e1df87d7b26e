"""Requests that wait for an answer from the stages: replies come in, whoever waits is woken.

Every request waits under its id until all parts of its answer are there, or its time is up. A
window (`windows.py`) stays under its own id as long as it is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pipeline.model.reply import Reply


class Waiter:
    """One request that waits. Made by `Waiting.open`, given back by `Waiting.close`."""

    __slots__ = ("_done", "_parts", "request")

    def __init__(self, request: str, done: asyncio.Future[None]) -> None:
        self.request = request
        self._done = done
        self._parts: dict[int, Reply] = {}

    async def replies(self, timeout_s: float) -> list[Reply]:
        """Return the parts in order: all of them, or those that came within `timeout_s`."""
        if not self._done.done():
            timer = asyncio.get_running_loop().call_later(max(0.0, timeout_s), self.expire)
            try:
                await self._done
            finally:
                timer.cancel()
        return [self._parts[part] for part in sorted(self._parts)]

    def expire(self) -> None:
        """End the wait with what is there."""
        if not self._done.done():
            self._done.set_result(None)

    def take(self, reply: Reply) -> bool:
        """Keep a part; the wait ends with the last one. False: too late for this answer."""
        kept = self._parts.get(reply.part)
        if kept is not None:
            return kept.downlink_id == reply.downlink_id
        if self._done.done():
            return False
        self._parts[reply.part] = reply
        if len(self._parts) >= reply.of:
            self._done.set_result(None)
        return True


class Waiting:
    """All requests of this process that wait. For one event loop; not thread-safe."""

    def __init__(self, instance: str, waiting_max: int) -> None:
        """`instance` is drawn by lot a process: it is the key of this process's replies."""
        self.instance = instance
        self.partition = 0  # of topic `reply`; chosen before the first request is let in
        self._waiting_max = waiting_max
        self._waiters: dict[str, Waiter] = {}
        self._answered: dict[str, frozenset[str]] = {}
        self._windows: dict[str, Callable[[Reply, str], bool]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def open(self, request: str) -> Waiter | None:
        """Return the place of a request that begins to wait; None: too many wait already."""
        if len(self._waiters) >= self._waiting_max:
            return None
        waiter = Waiter(request, asyncio.get_running_loop().create_future())
        self._waiters[request] = waiter
        return waiter

    def close(self, waiter: Waiter, answered: Iterable[str] = ()) -> None:
        """Give a place back. `answered` are the ids of the downlinks that the answer carries."""
        self._waiters.pop(waiter.request, None)
        self._remember(waiter.request, answered)

    def keep(self, request: str, take: Callable[[Reply, str], bool]) -> None:
        """Let `take` have all replies to a window, with their traces, until its end."""
        self._windows[request] = take

    def end(self, request: str, answered: Iterable[str]) -> None:
        """End a window. `answered` are the ids of the downlinks that it was given."""
        if self._windows.pop(request, None) is not None:
            self._remember(request, answered)

    def _remember(self, request: str, answered: Iterable[str]) -> None:
        carried = frozenset(answered)
        if carried:
            self._answered[request] = carried
            while len(self._answered) > self._waiting_max:
                del self._answered[next(iter(self._answered))]

    def deliver(self, reply: Reply, trace: str = "") -> bool:
        """Hand a part to whoever waits for it. False: nobody does, and none was answered with it.

        A part that comes twice (an engine that writes at least once) is no late one.
        """
        take = self._windows.get(reply.request)
        if take is not None:
            return take(reply, trace)
        waiter = self._waiters.get(reply.request)
        if waiter is not None:
            return waiter.take(reply)
        return reply.downlink_id in self._answered.get(reply.request, ())

    def expire_all(self) -> None:
        """End every wait with what is there."""
        for waiter in list(self._waiters.values()):
            waiter.expire()
