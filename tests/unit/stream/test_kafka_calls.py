"""Calls that may never come back."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pipeline.stream.kafka_calls import Calls


def test_what_a_call_returns_or_raises() -> None:
    """A call's value and its error come to who asked; the same thread serves the next one."""
    calls = Calls("test")
    first = calls.run(threading.get_ident, 10)

    def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        calls.run(fail, 10)
    assert calls.run(threading.get_ident, 10) == first != threading.get_ident()
    calls.close()


def test_a_call_that_does_not_come_back_is_left_behind() -> None:
    """Who waits goes on after its patience, the next call has its own answer, and what was left
    behind ends by itself when it returns at last.
    """
    calls = Calls("test")
    returns = threading.Event()
    inside: list[threading.Thread] = []

    def stuck() -> Any:
        inside.append(threading.current_thread())
        returns.wait(60)
        return "late"

    with pytest.raises(TimeoutError):
        calls.run(stuck, 0.05)
    assert calls.run(lambda: "next", 10) == "next"
    assert inside[0].is_alive()
    returns.set()
    inside[0].join(10)
    assert not inside[0].is_alive()
    assert calls.run(lambda: "again", 10) == "again"
    calls.close()
