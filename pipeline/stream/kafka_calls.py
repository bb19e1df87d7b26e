"""Calls that may never come back, made in a thread that can be left behind.

In: a call of a client and how long to wait for it. Out: what it returns or raises, or TimeoutError.
librdkafka's `send_offsets_to_transaction` looks at its timeout only while the group's coordinator
answers: with that broker gone for good it stays until some broker changes its state (librdkafka
issues 5456 and 5511), and the stage would stand still with all its partitions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

Call = Callable[[], Any]


class _Outcome(NamedTuple):
    value: Any
    error: BaseException | None


class Calls:
    """One call at a time, for one thread that waits. What was left behind ends when it returns."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: SimpleQueue[Call | None] | None = None
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()

    def run(self, call: Call, patience_s: float) -> Any:
        """Return what the call returns, or raise what it raises. TimeoutError: it did not come
        back in `patience_s`; whatever it holds is not to be used any more.
        """
        if self._asked is None:
            self._asked, self._outcomes = SimpleQueue(), SimpleQueue()
            threading.Thread(
                target=_serve,
                args=(self._asked, self._outcomes),
                name=self._name,
                daemon=True,
            ).start()
        self._asked.put(call)
        try:
            outcome = self._outcomes.get(timeout=patience_s)
        except Empty:
            self.close()
            raise TimeoutError(f"no return within {patience_s:g} s") from None
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def close(self) -> None:
        """Have the thread end after what it is at. May be called twice."""
        if self._asked is not None:
            self._asked.put(None)
            self._asked = None


def _serve(asked: SimpleQueue[Call | None], outcomes: SimpleQueue[_Outcome]) -> None:
    while (call := asked.get()) is not None:
        try:
            outcomes.put(_Outcome(call(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            outcomes.put(_Outcome(None, error))
        del call  # what it holds, such as a producer, goes with it
