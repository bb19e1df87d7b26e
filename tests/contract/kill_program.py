"""A small program that appends and processes until it is killed.

In: the path of a log and the round's name; out, on standard output: the id of each record whose
append returned, one a line. Its stages are those of the kill test.
"""

from __future__ import annotations

import asyncio
import sys

from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream import EngineSettings, LogSettings, SqliteEngine, SqliteLog

WRITERS = 8


class Count:
    """Numbers the records of each key, passes them on, and has each confirmed by a timer."""

    name = "count"
    topic = "in"
    state_topic: str | None = "count.state"

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        outputs = [Outgoing("fired", timer.key, timer.data.encode(), {}) for timer in batch.timers]
        for record in batch.records:
            number = (state.get(record.key, "count") or 0) + 1
            state.put(record.key, "count", number)
            name = (record.value or b"").decode()
            state.set_timer(record.key, name, now_ms + 3, name)
            outputs.append(Outgoing("counted", record.key, record.value, {"number": str(number)}))
        return outputs


class Copy:
    """Copies what was counted."""

    name = "copy"
    topic = "counted"
    state_topic: str | None = None

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        return [Outgoing("out", found.key, found.value, found.headers) for found in batch.records]


async def write(log: SqliteLog, name: str) -> None:
    """Append for ever, and say what was appended."""
    number = 0
    while True:
        ids = [f"{name}-{number + more}" for more in range(1 + number % 3)]
        number += len(ids)
        await log.append([Outgoing("in", f"k{number % 5}", each.encode(), {}) for each in ids])
        sys.stdout.write("".join(f"{each}\n" for each in ids))
        sys.stdout.flush()


async def main(path: str, round_name: str) -> None:
    """Run until killed."""
    settings = LogSettings(checkpoint_pages=50, upkeep_every_s=0.05, retention_s={})
    log = SqliteLog.open(path, settings)
    SqliteEngine(log, [Count(), Copy()], EngineSettings(records_max=20)).start()
    await asyncio.gather(*(write(log, f"{round_name}-{each}") for each in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
