"""What a stage keeps of one partition, and how it is written to the changelog.

In come records of the changelog, at a restore and with each batch; out go a key's parts, timers
that are due, and the partition's time. Pure: no Faust, no I/O.

Records are those of `kafka_changes`, and one more under `CLOCK`: the partition's time, and the
offset that follows what this state comes from. It is written last in each batch: so a record that
comes again is known, and the last record of a changelog is never a deletion, which compaction
would take away one day, while Faust's restore waits for the last record by its offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

import orjson

from pipeline.ports import ASIDE, DueTimer
from pipeline.stream.kafka_changes import Change, changes_of, read_key, timer_key

# No part has this key: a `#` in a part's name is written as %23.
CLOCK = b"#clock#now"


def rows(
    changes: Mapping[tuple[str, str], Any],
    timer_changes: Mapping[tuple[str, str], tuple[int, Any] | None],
    fired: Iterable[DueTimer],
    now_ms: int,
    following: int,
) -> list[Change]:
    """Return what a batch changed; `following` is the offset after its last record.

    TypeError: a value is no JSON; nothing was changed.
    """
    found = changes_of(changes, timer_changes)
    found += [
        Change(timer_key(timer.key, timer.name), None)
        for timer in fired
        if (timer.key, timer.name) not in timer_changes
    ]
    found.append(Change(CLOCK, orjson.dumps((now_ms, following))))
    return found


class PartitionState:
    """Parts, timers and time of one partition, as the changelog has them."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, bytes]] = {}
        self.timers: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.now_ms = 0
        self.following = 0
        # May name timers that are gone or were moved; `timers` says what counts.
        self._queue: list[tuple[int, str, str]] = []

    def apply(self, changes: Iterable[Change]) -> None:
        """Take in records of the changelog, in their order. ValueError: one is not ours."""
        for written, value in changes:
            if written == CLOCK:
                now_ms, self.following = orjson.loads(value or b"[0,0]")
                self.now_ms = max(self.now_ms, now_ms)
                continue
            key, name, is_timer = read_key(written)
            if is_timer:
                self._timer(key, name, value)
            else:
                self._part(key, name, value)

    def load(self, key: str) -> dict[str, Any]:
        """Return a key's parts, decoded, but for those aside."""
        parts = self.parts.get(key, {})
        return {part: orjson.loads(parts[part]) for part in parts if not part.startswith(ASIDE)}

    def load_aside(self, key: str, prefix: str) -> dict[str, Any]:
        """Return those parts of a key that are aside and whose names begin so, decoded."""
        parts = self.parts.get(key, {})
        return {part: orjson.loads(parts[part]) for part in parts if part.startswith(prefix)}

    def due(self, now_ms: int, timers_max: int) -> list[DueTimer]:
        """Return the timers whose time has come, in order; they stay until `apply` removes them."""
        found: dict[tuple[str, str], DueTimer] = {}
        while self._queue and self._queue[0][0] <= now_ms and len(found) < timers_max:
            due_ms, key, name = heappop(self._queue)
            timer = self.timers.get((key, name))
            if timer is not None and timer[0] == due_ms:
                found[key, name] = DueTimer(key, name, due_ms, orjson.loads(timer[1]))
        for timer_due in found.values():
            heappush(self._queue, (timer_due.due_ms, timer_due.key, timer_due.name))
        return list(found.values())

    def next_due_ms(self) -> int | None:
        """Return when the next timer is due; None: there is none."""
        while self._queue:
            due_ms, key, name = self._queue[0]
            timer = self.timers.get((key, name))
            if timer is not None and timer[0] == due_ms:
                return due_ms
            heappop(self._queue)
        return None

    def _part(self, key: str, part: str, value: bytes | None) -> None:
        if value is not None:
            self.parts.setdefault(key, {})[part] = value
            return
        parts = self.parts.get(key)
        if parts is not None:
            parts.pop(part, None)
            if not parts:
                del self.parts[key]

    def _timer(self, key: str, name: str, value: bytes | None) -> None:
        if value is None:
            self.timers.pop((key, name), None)
            return
        due_ms, data = orjson.loads(value)
        self.timers[key, name] = (due_ms, orjson.dumps(data))
        heappush(self._queue, (due_ms, key, name))
