"""The clock of the engines' conformance suite."""

from __future__ import annotations

START_MS = 1_700_000_000_000


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms
