"""A log of a running or stopped Funicular, as offline work on rules reads it: records, state.

`EmbeddedRecords` is the embedded log; `stream/kafka_view.py` has Kafka's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from pipeline.model.record import Record
from pipeline.stream.view import LogView

READ_RECORDS = 2_000
"""Records that are held in memory at a time."""

State = dict[str, dict[str, Any]]
Timers = list[tuple[int, str, str, Any]]


class Records(Protocol):
    """What was recorded. Nothing is ever written to it."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def records(self, topic: str, *, key: str | None = None, since_ms: int = 0) -> Iterator[Record]:
        """Yield what a topic holds at this moment, of one key or of all, from a time on; the
        order of each partition is kept.
        """
        ...

    def is_whole(self, topic: str, key: str) -> bool:
        """Return whether nothing of a topic, where this key's records are, was deleted yet."""
        ...

    def state(self, stage: str, key: str | None = None) -> State:
        """Return what a stage keeps: key → part → value; of one key, or of all."""
        ...

    def timers(self, stage: str) -> Timers:
        """Return a stage's timers in order: due_ms, key, name, data."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class EmbeddedRecords:
    """The embedded log, read while a process may be writing it."""

    def __init__(self, path: Path) -> None:
        """UsageError: there is none, or the file is no log of this version."""
        self.name = f"the log {path}"
        self._view = LogView(path)

    def records(self, topic: str, *, key: str | None = None, since_ms: int = 0) -> Iterator[Record]:
        """See `Records`."""
        after, last = -1, self._view.last_offset(topic)
        while after < last:
            found = self._view.scan(topic, after, READ_RECORDS)
            if not found:
                return
            after = found[-1].offset
            for record in found:
                wanted = record.time_ms >= since_ms and record.offset <= last
                if wanted and (key is None or record.key == key):
                    yield record

    def is_whole(self, topic: str, key: str) -> bool:  # noqa: ARG002 - there is one partition
        """See `Records`."""
        return self._view.topics().get(topic, (0, 0))[0] == 0

    def state(self, stage: str, key: str | None = None) -> State:
        """See `Records`."""
        return self._view.state(stage, key)

    def timers(self, stage: str) -> Timers:
        """See `Records`."""
        return self._view.timers(stage)

    def close(self) -> None:
        """See `Records`."""
        self._view.close()
