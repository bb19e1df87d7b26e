"""Scripts of rule chains, run in batches although a chain is walked message by message.

In: the calls of one batch's script nodes. Out: their results. A call whose result is not there yet
ends its record's turn by `Deferred`; the stage takes back what the turn did, goes on with other
devices, has all such calls run at once, and takes these turns again from their beginning, now with
the results. A turn is the same each time, since the same state and time give the same walk.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import MessageError
from pipeline.ports import ScriptCall, ScriptPort


class Deferred(Exception):  # noqa: N818 - no error: a turn that will be taken again
    """The turn needs the result of `call` first."""

    def __init__(self, call: ScriptCall) -> None:
        super().__init__(call.operation)
        self.call = call


class Calls:
    """The script calls of one batch. `alone`: nothing else could go into a batch with a call."""

    __slots__ = ("_batched_max", "_next", "_pending", "_port", "_results", "alone")

    def __init__(self, port: ScriptPort | None, batched_max: int) -> None:
        self._port = port
        self._batched_max = batched_max
        self._pending: list[Any] | None = None
        self._results: list[Any] = []
        self._next = 0
        self.alone = False

    def begin(self) -> None:
        """Begin a turn: its first call is the next."""
        self._results = [] if self._pending is None else self._pending
        self._pending = None
        self._next = 0

    def again(self, results: list[Any]) -> None:
        """Let the next turn be one that was taken before, with the results it has by now."""
        self._pending = results

    def results(self) -> list[Any]:
        """Return the results that this turn has had so far."""
        return self._results

    def call(self, call: ScriptCall) -> Any:
        """Return what a script returned.

        ScriptError: it failed. Deferred: not known yet. RetryableError: the engine does not
        start. Calls past `batched_max` of one turn run at once: walking it again
        would cost more than a batch saves.
        """
        number = self._next
        self._next += 1
        if number == len(self._results):
            if not self.alone and number < self._batched_max:
                raise Deferred(call)
            self._results += self.run([call])
        result = self._results[number]
        if isinstance(result, MessageError):
            raise result
        return result

    def run(self, calls: list[ScriptCall]) -> list[Any]:
        """Return the results of calls, errors as values; blocks."""
        if self._port is None:
            missing = MessageError("there is no engine for scripts here", code="script_engine")
            return [missing] * len(calls)
        return self._port.call(calls)
