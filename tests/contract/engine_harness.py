"""What the engines' conformance suite needs of an engine, and the stages that it runs.

An engine is plugged in by a Harness and its name in `HARNESSES`; `capabilities` says which claims
apply to it: `restart` (state outlives the process), `log` (implements `ports.Log`), `bounded`
(has a size limit, and retention). The engine on Kafka runs on a real broker: `kafka_harness`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.errors import RetryableError
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState, Stage
from pipeline.stream import EngineSettings, LogSettings, MemoryEngine, SqliteEngine, SqliteLog
from tests.contract.clock import Clock
from tests.contract.faust_harness import FaustHarness
from tests.contract.kafka_harness import KafkaHarness

DRAIN_S = 20.0


class Harness(Protocol):
    """One engine with its log, under a clock that the test sets."""

    name: str
    capabilities: frozenset[str]
    clock: Clock

    def __init__(self, folder: Path) -> None: ...

    def start(
        self, stages: Sequence[Stage], *, records_max: int = 1_000, timers_max: int = 1_000
    ) -> None:
        """Open the log if it is not, and run these stages."""

    def append(self, records: Sequence[Outgoing]) -> None:
        """Append; return when durable."""

    def run(self) -> None:
        """Let the stages work until nothing waits; raise what made the engine fail."""

    def stop(self) -> None:
        """Stop stages and close the log."""

    def records(self, topic: str) -> list[Record]: ...

    def state(self, stage: str) -> dict[str, dict[str, Any]]: ...

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]: ...

    def lag(self) -> int:
        """Return how many records wait for stages."""


class SqliteHarness:
    """The embedded log."""

    name = "sqlite"
    capabilities = frozenset({"restart", "log", "bounded"})

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.db"
        self.clock = Clock()
        self.settings = LogSettings(disk_free_bytes_min=0)
        self.log: SqliteLog | None = None
        self.engine: SqliteEngine | None = None

    def open(self) -> SqliteLog:
        if self.log is None:
            self.log = SqliteLog.open(self.path, self.settings, clock=self.clock)
        return self.log

    def start(
        self, stages: Sequence[Stage], *, records_max: int = 1_000, timers_max: int = 1_000
    ) -> None:
        settings = EngineSettings(
            records_max=records_max, timers_max=timers_max, retry_first_s=0.001, retry_max_s=0.01
        )
        self.engine = SqliteEngine(self.open(), stages, settings)
        self.engine.start()

    def append(self, records: Sequence[Outgoing]) -> None:
        self.open().append_blocking(records)

    def run(self) -> None:
        assert self.engine is not None
        self.engine.wake()
        assert self.engine.drain(DRAIN_S)

    def stop(self) -> None:
        if self.engine is not None:
            self.engine.stop(DRAIN_S)
            self.engine = None
        if self.log is not None:
            self.log.close()
            self.log = None

    def records(self, topic: str) -> list[Record]:
        with SqliteLog.peek(self.path) as view:
            return view.scan(topic, limit=1_000_000)

    def state(self, stage: str) -> dict[str, dict[str, Any]]:
        with SqliteLog.peek(self.path) as view:
            return view.state(stage)

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]:
        with SqliteLog.peek(self.path) as view:
            return view.timers(stage)

    def lag(self) -> int:
        return sum(self.open().lag().values())


class MemoryHarness:
    """The engine for offline work."""

    name = "memory"
    capabilities: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.engine: MemoryEngine | None = None

    def start(
        self, stages: Sequence[Stage], *, records_max: int = 1_000, timers_max: int = 1_000
    ) -> None:
        self.engine = MemoryEngine(
            stages, now_ms=self.clock.now_ms, records_max=records_max, timers_max=timers_max
        )

    def append(self, records: Sequence[Outgoing]) -> None:
        assert self.engine is not None
        self.engine.append(records)

    def run(self) -> None:
        assert self.engine is not None
        for _ in range(100):
            try:
                self.engine.run_until_idle(self.clock.now_ms)
            except RetryableError:
                continue
            return

    def stop(self) -> None:
        """There is nothing to stop."""

    def records(self, topic: str) -> list[Record]:
        assert self.engine is not None
        return self.engine.records(topic)

    def state(self, stage: str) -> dict[str, dict[str, Any]]:
        assert self.engine is not None
        return self.engine.state(stage)

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]:
        assert self.engine is not None
        return self.engine.timers(stage)

    def lag(self) -> int:
        assert self.engine is not None
        return sum(self.engine.lag().values())


HARNESSES: tuple[type[Harness], ...] = (SqliteHarness, MemoryHarness, KafkaHarness, FaustHarness)
# Those that need a broker run in one process of xdist, which starts it once.
MARKS: dict[str, Sequence[pytest.MarkDecorator]] = {
    kind.name: (pytest.mark.kafka, pytest.mark.xdist_group("kafka"))
    for kind in (KafkaHarness, FaustHarness)
}


def engines(*needed: str) -> pytest.MarkDecorator:
    """Run a test on each engine that has the capabilities it needs, as argument `harness`."""
    fitting = [
        pytest.param(kind, id=kind.name, marks=MARKS.get(kind.name, ()))
        for kind in HARNESSES
        if set(needed) <= kind.capabilities
    ]
    return pytest.mark.parametrize("harness", fitting, indirect=True)


class FunctionStage:
    """A stage made of a function, which keeps what it was handed."""

    def __init__(
        self,
        handle: Callable[[Batch, DeviceState, int], list[Outgoing]],
        *,
        name: str = "stage",
        topic: str = "in",
    ) -> None:
        self.name = name
        self.topic = topic
        self.state_topic: str | None = f"{name}.state"
        self._handle = handle
        self.batches: list[Batch] = []
        self.times: list[int] = []

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        self.batches.append(batch)
        self.times.append(now_ms)
        return self._handle(batch, state, now_ms)


def record(key: str, value: str, topic: str = "in") -> Outgoing:
    """Return a record to append, with a header that says its value."""
    return Outgoing(topic, key, value.encode(), {"id": value})


def values(records: Sequence[Record]) -> list[str]:
    """Return the records' values as text."""
    return [(found.value or b"").decode() for found in records]


def copy(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
    """Copy every record from `in` to `out`."""
    return [
        Outgoing("out", found.key, found.value, found.headers, found.partition)
        for found in batch.records
    ]


def tally(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
    """Number the records of each key, keep the last three, and copy them with their number.

    `delete` empties the key; `timer 5` sets a timer 5 ms ahead, which copies its data.
    """
    outputs = [
        Outgoing("out", timer.key, f"fired {timer.name} {timer.data}".encode(), {})
        for timer in batch.timers
    ]
    for found in batch.records:
        text = (found.value or b"").decode()
        if text == "delete":
            state.delete(found.key, "count")
            state.delete(found.key, "last")
            continue
        if text.startswith("timer "):
            state.set_timer(found.key, text, now_ms + int(text[6:]), {"offset": found.offset})
        count = (state.get(found.key, "count") or 0) + 1
        state.put(found.key, "count", count)
        state.put(found.key, "last", [*(state.get(found.key, "last") or []), text][-3:])
        outputs.append(Outgoing("out", found.key, f"{count} {text}".encode(), found.headers))
    return outputs
