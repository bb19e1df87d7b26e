"""The engine for offline work on rules and for tests: no file, no thread, no clock of its own.

In come records and the time; stages run step by step when they are asked to; every topic, state
and timer can be read. It gives stages what `SqliteEngine` gives them (the conformance suite
holds both to it), and keeps values as JSON, so that what a log could not keep fails here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState, DueTimer, Stage


class MemoryEngine:
    """Runs stages when told to. `steps_max` ends stages that feed each other for ever."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        now_ms: int = 0,
        records_max: int = 1_000,
        timers_max: int = 1_000,
        steps_max: int = 100_000,
    ) -> None:
        self._stages = list(stages)
        self._records_max = records_max
        self._timers_max = timers_max
        self._steps_max = steps_max
        self._topics: dict[str, list[Record]] = {}
        self._positions: dict[str, int] = {stage.name: 0 for stage in stages}
        self._state: dict[str, dict[str, dict[str, bytes]]] = {stage.name: {} for stage in stages}
        self._timers: dict[str, dict[tuple[str, str], tuple[int, bytes]]] = {
            stage.name: {} for stage in stages
        }
        self._waiting: dict[str, Batch] = {}
        self.now_ms = now_ms

    def restore(
        self,
        stage: str,
        state: Mapping[str, Mapping[str, Any]],
        timers: Iterable[tuple[int, str, str, Any]] = (),
    ) -> None:
        """Give a stage state and timers to begin with, as `state` and `timers` return them."""
        kept, mine = self._state[stage], self._timers[stage]
        for key, parts in state.items():
            kept.setdefault(key, {}).update(
                {part: orjson.dumps(value) for part, value in parts.items()}
            )
        for due_ms, key, name, data in timers:
            mine[key, name] = (due_ms, orjson.dumps(data))

    def append(self, records: Sequence[Outgoing]) -> None:
        """Append records; stages see them at the next run."""
        for record in records:
            if record.partition:
                msg = f"This log has partition 0 alone, not {record.partition} of {record.topic}"
                raise ValueError(msg)
        for record in records:
            topic = self._topics.setdefault(record.topic, [])
            topic.append(
                Record(
                    record.topic,
                    0,
                    len(topic),
                    self.now_ms,
                    record.key,
                    record.value,
                    dict(record.headers),
                )
            )

    def step(self) -> Stage | None:
        """Handle and commit one batch of the first stage that has one; return the stage.

        Raises what the stage raised; then nothing was committed. After RetryableError the next
        step hands the same batch again.
        """
        for stage in self._stages:
            batch = self._waiting.get(stage.name) or self._next_batch(stage)
            if batch is not None:
                self._waiting[stage.name] = batch
                self._run(stage, batch)
                del self._waiting[stage.name]
                return stage
        return None

    def run_until_idle(self, now_ms: int | None = None) -> int:
        """Step until nothing waits at `now_ms` (no earlier than the time before); return how
        many steps. RuntimeError: still not idle after `steps_max`.
        """
        if now_ms is not None:
            self.now_ms = max(self.now_ms, now_ms)
        for count in range(self._steps_max):
            if self.step() is None:
                return count
        msg = f"The stages are still not idle after {self._steps_max} steps (steps_max)"
        raise RuntimeError(msg)

    def advance(self, to_ms: int) -> None:
        """Let time pass: timers fire one after the other, each at its own time."""
        self.run_until_idle()
        while (due_ms := self._earliest()) is not None and due_ms <= to_ms:
            self.run_until_idle(due_ms)
        self.run_until_idle(to_ms)

    def records(self, topic: str, after_offset: int = -1) -> list[Record]:
        """Return a topic's records past an offset."""
        return self._topics.get(topic, [])[after_offset + 1 :]

    def topics(self) -> list[str]:
        """Return the names of the topics that have records."""
        return sorted(self._topics)

    def state(self, stage: str) -> dict[str, dict[str, Any]]:
        """Return what a stage keeps: key → part → value."""
        return {
            key: {part: orjson.loads(value) for part, value in sorted(parts.items())}
            for key, parts in sorted(self._state[stage].items())
            if parts
        }

    def timers(self, stage: str) -> list[tuple[int, str, str, Any]]:
        """Return a stage's timers in order: due_ms, key, name, data."""
        return sorted(
            (
                (due_ms, key, name, orjson.loads(data))
                for (key, name), (due_ms, data) in self._timers[stage].items()
            ),
            key=lambda timer: timer[:3],
        )

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, by topic and stage."""
        return {
            (stage.topic, stage.name): len(self._topics.get(stage.topic, ()))
            - self._positions[stage.name]
            for stage in self._stages
        }

    def _next_batch(self, stage: Stage) -> Batch | None:
        position = self._positions[stage.name]
        records = self._topics.get(stage.topic, [])[position : position + self._records_max]
        timers = [
            DueTimer(key, name, due_ms, data)
            for due_ms, key, name, data in self.timers(stage.name)
            if due_ms <= self.now_ms
        ][: self._timers_max]
        return Batch(0, records, timers) if records or timers else None

    def _run(self, stage: Stage, batch: Batch) -> None:
        kept = self._state[stage.name]

        def load(key: str) -> dict[str, Any]:
            return {part: orjson.loads(value) for part, value in kept.get(key, {}).items()}

        state = DeviceState(load)  # all at once, those aside too: there is no store to spare
        outputs = stage.handle(batch, state, self.now_ms)
        changes = {name: _json(value) for name, value in state.changes.items()}
        timers = {
            name: None if timer is None else (timer[0], orjson.dumps(timer[1]))
            for name, timer in state.timer_changes.items()
        }
        self.append(outputs)
        for (key, part), value in changes.items():
            if value is None:
                kept.get(key, {}).pop(part, None)
            else:
                kept.setdefault(key, {})[part] = value
        mine = self._timers[stage.name]
        for timer in batch.timers:
            mine.pop((timer.key, timer.name), None)
        for name, change in timers.items():
            if change is None:
                mine.pop(name, None)
            else:
                mine[name] = change
        self._positions[stage.name] += len(batch.records)

    def _earliest(self) -> int | None:
        return min(
            (due_ms for timers in self._timers.values() for due_ms, _ in timers.values()),
            default=None,
        )


def _json(value: Any) -> bytes | None:
    return None if value is None else orjson.dumps(value)
