"""The engine on the embedded log: starting, stopping, failing, and its real clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import RetryableError, UsageError
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream import EngineSettings, SqliteEngine, SqliteLog

WAIT_S = 10


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """A log under the real clock."""
    with SqliteLog.open(tmp_path / "log.db") as found:
        yield found


def record(value: str) -> Outgoing:
    return Outgoing("in", "k", value.encode(), {})


class Copy:
    """Copies records; waits at the gate, where there is one."""

    name = "copy"
    topic = "in"
    state_topic: str | None = "copy.state"

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.entered = threading.Event()

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(WAIT_S)
        return [Outgoing("out", found.key, found.value, {}) for found in batch.records]


def test_stopping_finishes_the_batch(log: SqliteLog) -> None:
    """A batch that is being handled when the engine is stopped is still committed, no further."""
    stage = Copy(threading.Event())
    engine = SqliteEngine(log, [stage], EngineSettings(records_max=1))
    log.append_blocking([record("a"), record("b")])
    engine.start()
    assert stage.entered.wait(WAIT_S)
    assert engine.running
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    while engine.running:
        time.sleep(0)
    assert stage.gate is not None
    stage.gate.set()
    stopping.join(WAIT_S)
    assert [found.value for found in log.scan("out")] == [b"a"]
    assert log.lag() == {("in", "copy"): 1}
    assert engine.failed.result(0) is None


def test_a_stage_that_does_not_end_is_said(log: SqliteLog) -> None:
    """`stop` returns in its time, and what the stage still does is not committed after a close."""
    stage = Copy(threading.Event())
    engine = SqliteEngine(log, [stage])
    log.append_blocking([record("a")])
    engine.start()
    assert stage.entered.wait(WAIT_S)
    assert not engine.stop(0.01)
    log.close()
    assert stage.gate is not None
    stage.gate.set()
    assert engine.stop(WAIT_S)
    with SqliteLog.peek(log.path) as view:
        assert view.last_offset("out") == -1
        assert view.positions() == {("in", "copy"): 0}


def test_stopping_does_not_wait_for_a_retry(log: SqliteLog) -> None:
    """A stage that backs off is stopped at once, its batch uncommitted."""

    class Away(Copy):
        def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
            super().handle(batch, state, now_ms)
            raise RetryableError("away", retry_after_s=3_600)

    stage = Away()
    engine = SqliteEngine(log, [stage], EngineSettings(retry_max_s=3_600))
    log.append_blocking([record("a")])
    engine.start()
    assert stage.entered.wait(WAIT_S)
    began = time.monotonic()
    assert engine.stop(WAIT_S)
    assert time.monotonic() - began < WAIT_S / 2
    assert log.lag() == {("in", "copy"): 1}


def test_one_failing_stage_stops_all(log: SqliteLog) -> None:
    """After a bug in one stage no other handles on, and `failed` and `drain` say the error."""

    class Broken(Copy):
        name = "broken"
        topic = "other"

        def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
            raise ZeroDivisionError

    engine = SqliteEngine(log, [Copy(), Broken()])
    engine.start()
    log.append_blocking([record("a")])
    assert engine.drain(WAIT_S)
    log.append_blocking([Outgoing("other", "k", b"", {})])
    assert isinstance(engine.failed.exception(WAIT_S), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        engine.drain(WAIT_S)
    assert not engine.running
    assert engine.stop(WAIT_S)
    log.append_blocking([record("b")])
    assert [found.value for found in log.scan("out")] == [b"a"]


def test_stages_have_names_of_their_own(log: SqliteLog) -> None:
    """Two stages of one name would share a position."""
    with pytest.raises(UsageError, match="copy, copy"):
        SqliteEngine(log, [Copy(), Copy()])


def test_a_stage_is_known_before_it_runs(log: SqliteLog) -> None:
    """From the engine's construction on, its stages' records are protected and counted."""
    log.append_blocking([record("a")])
    SqliteEngine(log, [Copy()])
    assert log.lag() == {("in", "copy"): 1}


def test_a_timer_fires_by_itself(log: SqliteLog) -> None:
    """Under the real clock a timer fires when its time has come, with nobody calling."""

    class Later(Copy):
        def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
            for found in batch.records:
                state.set_timer(found.key, "x", now_ms + 30)
            return [Outgoing("fired", timer.key, b"", {}) for timer in batch.timers]

    engine = SqliteEngine(log, [Later()])
    engine.start()
    log.append_blocking([record("a")])
    assert log.catalogue.wait(lambda: log.last_offset("fired") == 0, WAIT_S)
    (fired,), (asked,) = log.scan("fired"), log.scan("in")
    assert fired.time_ms >= asked.time_ms + 30
    assert engine.stop(WAIT_S)


def test_what_was_handled_is_counted(log: SqliteLog) -> None:
    """Records, batches and time of each stage are metrics."""
    metrics = Registry()
    engine = SqliteEngine(log, [Copy()], EngineSettings(records_max=2), metrics)
    log.append_blocking([record(str(n)) for n in range(5)])
    engine.start()
    assert engine.drain(WAIT_S)
    assert engine.stop(WAIT_S)
    label = (("stage", "copy"),)
    assert metrics.values("funicular_stage_records_total") == {label: 5}
    assert metrics.values("funicular_stage_batches_total") == {label: 3}
    assert metrics.values("funicular_stage_seconds_total")[label] > 0


def test_state_larger_than_the_cache_is_still_right(log: SqliteLog) -> None:
    """With room for one key in memory, every key's count is right."""

    class Count(Copy):
        def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
            for found in batch.records:
                state.put(found.key, "n", (state.get(found.key, "n") or 0) + 1)
            return []

    settings = EngineSettings(records_max=3, state_keys_max=1)
    engine = SqliteEngine(log, [Count()], settings)
    log.append_blocking([Outgoing("in", f"k{n % 7}", b"", {}) for n in range(70)])
    engine.start()
    assert engine.drain(WAIT_S)
    assert engine.stop(WAIT_S)
    with log.peek(log.path) as view:
        assert view.state("copy") == {f"k{n}": {"n": 10} for n in range(7)}
        assert view.state("copy", "k3") == {"k3": {"n": 10}}
