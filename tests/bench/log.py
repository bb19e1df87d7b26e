"""How fast the embedded log is: appends from asyncio, and records through one and two stages.

Run: `python -m tests.bench.log [--seconds 2] [--folder PATH] [--switch-interval-s 0.005]`.
Prints a table. The folder's disk decides; syncs are real.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream import LogSettings, SqliteEngine, SqliteLog

VALUE = os.urandom(335).hex().encode()
HEADERS = {
    "id": "019a7f0e5b7c7d2f8a3b4c5d6e7f8091.0.m",
    "trace": "019a7f0e5b7c7d2f8a3b4c5d6e7f8091",
    "cause": "019a7f0e5b7c7d2f8a3b4c5d6e7f8091.0",
    "tenant": "acme",
    "rules": "3f2a9c",
    "schema": "1",
}
DEVICES = 5_000


class Copy:
    """Copies records, with or without a counter a device."""

    def __init__(self, name: str, source: str, target: str, *, counting: bool = False) -> None:
        self.name = name
        self.topic = source
        self.target = target
        self.counting = counting
        self.state_topic: str | None = f"{name}.state" if counting else None

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        if self.counting:
            for record in batch.records:
                count = state.get(record.key, "count") or 0
                state.put(record.key, "count", count + 1)
        target = self.target
        return [Outgoing(target, each.key, each.value, each.headers) for each in batch.records]


def uplinks(count: int, topic: str = "in") -> list[Outgoing]:
    """Return records of 670 bytes, of many devices."""
    return [
        Outgoing(topic, f"acme/device-{number % DEVICES:06}", VALUE, HEADERS)
        for number in range(count)
    ]


def write(log: SqliteLog, writers: int, seconds: float) -> tuple[int, float]:
    """Append from so many writers at once; return appends, and the slowest one's seconds."""
    record = uplinks(1)
    slowest = 0.0

    async def writer(until: float) -> int:
        nonlocal slowest
        count = 0
        while (began := time.perf_counter()) < until:
            await log.append(record)
            slowest = max(slowest, time.perf_counter() - began)
            count += 1
        return count

    async def story() -> int:
        until = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(writer(until) for _ in range(writers))))

    return asyncio.run(story()), slowest


def appends(folder: Path, writers: int, seconds: float) -> tuple[int, float, float]:
    """Return appends, seconds, and the slowest append in seconds."""
    with SqliteLog.open(folder / f"append-{writers}.db", LogSettings()) as log:
        began = time.perf_counter()
        count, slowest = write(log, writers, seconds)
        return count, time.perf_counter() - began, slowest


def stages(folder: Path, name: str, chain: list[Copy], count: int) -> tuple[int, float]:
    """Return records and the seconds they took through the chain."""
    with SqliteLog.open(folder / f"{name}.db", LogSettings()) as log:
        for _ in range(count // 1_000):
            log.append_blocking(uplinks(1_000))
        engine = SqliteEngine(log, chain, metrics=Registry())
        began = time.perf_counter()
        engine.start()
        assert engine.drain(120)
        took = time.perf_counter() - began
        assert log.last_offset(chain[-1].target) == count - 1
        engine.stop()
        return count, took


def both(folder: Path, writers: int, seconds: float) -> tuple[int, float, float]:
    """Return appends while two stages follow, the seconds until all came through, the slowest."""
    with SqliteLog.open(folder / f"both-{writers}.db", LogSettings()) as log:
        engine = SqliteEngine(
            log, [Copy("one", "in", "mid"), Copy("two", "mid", "out", counting=True)]
        )
        engine.start()
        began = time.perf_counter()
        count, slowest = write(log, writers, seconds)
        assert engine.drain(120)
        took = time.perf_counter() - began
        engine.stop()
        return count, took, slowest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--switch-interval-s", type=float, default=sys.getswitchinterval())
    given = parser.parse_args()
    sys.setswitchinterval(given.switch_interval_s)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        for writers in (1, 32, 64, 500):
            count, took, slowest = appends(folder, writers, given.seconds)
            print(  # noqa: T201 - it is what this program is for.
                f"append, {writers:3} at once          {count / took:10,.0f}/s"
                f"   slowest {slowest * 1000:6.1f} ms"
            )
        for title, chain in (
            ("one stage copies", [Copy("one", "in", "out")]),
            ("one stage, state a device", [Copy("one", "in", "out", counting=True)]),
            ("two stages", [Copy("one", "in", "mid"), Copy("two", "mid", "out", counting=True)]),
        ):
            count, took = stages(folder, title.replace(" ", "-"), chain, given.records)
            print(f"{title:30} {count / took:10,.0f}/s")  # noqa: T201 - as above.
        count, took, slowest = both(folder, 64, given.seconds)
        print(  # noqa: T201 - as above.
            f"64 at once through two stages  {count / took:10,.0f}/s"
            f"   slowest append {slowest * 1000:6.1f} ms"
        )


if __name__ == "__main__":
    main()
