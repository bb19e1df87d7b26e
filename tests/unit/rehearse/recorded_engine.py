"""Records of a rehearsal, as a log would have them: what offline work on a log is tested with."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.model.record import Record
from pipeline.rehearse.harness import Rehearsal
from pipeline.rehearse.recorded import State, Timers


class EngineRecords:
    """`Records` of a rehearsal's engine; `whole` false: as if retention had deleted the tail."""

    name = "the log of the test"

    def __init__(self, rehearsal: Rehearsal, *, whole: bool = True) -> None:
        self._engine = rehearsal.engine
        self._whole = whole

    def records(self, topic: str, *, key: str | None = None, since_ms: int = 0) -> Iterator[Record]:
        for record in self._engine.records(topic):
            if record.time_ms >= since_ms and key in (None, record.key):
                yield record

    def is_whole(self, topic: str, key: str) -> bool:
        return self._whole

    def state(self, stage: str, key: str | None = None) -> State:
        return {
            name: parts for name, parts in self._engine.state(stage).items() if key in (None, name)
        }

    def timers(self, stage: str) -> Timers:
        return self._engine.timers(stage)

    def close(self) -> None:
        """Nothing to close."""
