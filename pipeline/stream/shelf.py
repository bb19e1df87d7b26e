"""The embedded log as dead letters need it (`letters.Shelf`): read beside its writer, written by
`SqliteLog.append_blocking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.model.record import Outgoing, Record
from pipeline.stream.letters import NOWHERE
from pipeline.stream.view import LogView

READ_RECORDS = 500
"""Records that are held in memory at a time."""

Append = Callable[[Sequence[Outgoing]], None]


class EmbeddedShelf:
    """One file. `append` None: it is only looked at."""

    def __init__(self, path: Path, append: Append | None = None) -> None:
        self._path = path
        self._append = append

    def records(
        self, topic: str, *, since_ms: int = 0, past: Mapping[int, int] = NOWHERE
    ) -> Iterator[Record]:
        """See the port."""
        with LogView(self._path) as view:
            after, last = past.get(0, -1), view.last_offset(topic)
            while after < last:
                found = view.scan(topic, after, READ_RECORDS)
                if not found:
                    return
                after = found[-1].offset
                yield from (one for one in found if one.time_ms >= since_ms and one.offset <= last)

    def record(self, topic: str, partition: int, offset: int) -> Record | None:
        """See the port."""
        if partition:
            return None
        with LogView(self._path) as view:
            found = view.scan(topic, offset - 1, 1)
        return found[0] if found and found[0].offset == offset else None

    def append(self, records: Sequence[Outgoing]) -> None:
        """See the port."""
        if self._append is None:
            raise UsageError(f"The log {self._path} is only looked at here")
        self._append(records)
