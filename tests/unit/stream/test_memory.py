"""The engine for offline work: time that passes as told, steps one by one."""

from __future__ import annotations

import pytest

from pipeline.errors import RetryableError
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream import MemoryEngine


class Ticking:
    """Copies records; a record sets a timer 10 ms ahead, which sets itself again twice."""

    name = "ticking"
    topic = "in"
    state_topic: str | None = "ticking.state"

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for record in batch.records:
            state.set_timer(record.key, "tick", now_ms + 10, 1)
        for timer in batch.timers:
            if timer.data < 3:
                state.set_timer(timer.key, "tick", now_ms + 10, timer.data + 1)
        return [Outgoing("out", timer.key, str(now_ms).encode(), {}) for timer in batch.timers]


def test_each_timer_fires_at_its_own_time() -> None:
    """Letting a long time pass fires timers one after the other, those they set included."""
    engine = MemoryEngine([Ticking()], now_ms=100)
    engine.append([Outgoing("in", "k", b"", {})])
    engine.advance(1_000)
    assert [record.value for record in engine.records("out")] == [b"110", b"120", b"130"]
    assert engine.now_ms == 1_000
    assert engine.timers("ticking") == []
    assert engine.topics() == ["in", "out"]


def test_steps_say_which_stage_worked() -> None:
    """One step is one batch of one stage; none is left when nothing waits."""
    stage = Ticking()
    engine = MemoryEngine([stage], records_max=1)
    engine.append([Outgoing("in", "k", b"", {}), Outgoing("in", "k", b"", {})])
    assert engine.lag() == {("in", "ticking"): 2}
    assert [engine.step(), engine.step(), engine.step()] == [stage, stage, None]


def test_stages_that_never_end_are_stopped() -> None:
    """A stage that feeds itself for ever ends with an error that names the limit."""

    class Loop(Ticking):
        def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
            return [Outgoing("in", "k", b"", {})]

    engine = MemoryEngine([Loop()], steps_max=50)
    engine.append([Outgoing("in", "k", b"", {})])
    with pytest.raises(RuntimeError, match="steps_max"):
        engine.run_until_idle()


def test_a_retry_is_the_callers() -> None:
    """RetryableError comes out, and the next step hands the same batch though more has come."""
    seen: list[int] = []

    class Flaky(Ticking):
        def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
            seen.append(len(batch.records))
            if len(seen) == 1:
                raise RetryableError("away")
            return []

    engine = MemoryEngine([Flaky()])
    engine.append([Outgoing("in", "k", b"", {})])
    with pytest.raises(RetryableError):
        engine.run_until_idle()
    engine.append([Outgoing("in", "k", b"", {})])
    engine.run_until_idle()
    assert seen == [1, 1, 1]


def test_a_partition_that_is_not_there_is_refused() -> None:
    """Nothing is appended where one record names another partition than 0."""
    engine = MemoryEngine([])
    with pytest.raises(ValueError, match="partition 0 alone"):
        engine.append([Outgoing("in", "k", b"", {}), Outgoing("in", "k", b"", {}, 1)])
    assert engine.records("in") == []
