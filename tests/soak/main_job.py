"""The main job for millions of uplinks on the embedded log: does memory stay flat?

    python -m tests.soak.main_job [--uplinks 10000000] [--devices 100000] [--folder PATH]

Uplinks are appended as fast as the stages take them, a bounded number ahead; retention keeps the
log small. Says each minute what has been done, what the process and its script process hold, and
how large the file is. In the end the memory of the last quarter is held against that of the second
one: exit code 1 where it grew by more than `GROWTH_MAX`, or where anything became a dead letter or
was lost. In the first quarter devices become known and caches fill. A shorter run cannot be flat:
of repeat keys each device has a quarter of an hour's.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog

from pipeline import topics
from pipeline.interpreter import tune_interpreter
from pipeline.metrics import Registry
from pipeline.script import ScriptLimits, ScriptProcesses
from pipeline.stream.engine import SqliteEngine
from pipeline.stream.settings import MIB, LogSettings
from pipeline.stream.sqlite import SqliteLog
from pipeline.wiring import load_rules, stages
from tests.bench.main_job import RULES, uplinks_from
from tests.bench.peers.processes import resident_bytes

GROWTH_MAX = 1.05
AHEAD_MAX = 20_000
APPEND_RECORDS = 2_000
SAY_EVERY_S = 60.0
LOOKS = 400
DRAIN_S = 600.0
# Topics that nobody reads here would be kept for days, and fill the disk.
SETTINGS = LogSettings(
    topic_bytes_max=64 * MIB,
    retention_s={topics.DOWNLINK_STATUS: 60.0, topics.DELIVERY_PREFIX: 60.0},
)


def soak(count: int, devices: int, folder: Path) -> bool:
    """Run it; return whether memory stayed flat and all was done."""
    metrics = Registry()
    scripts = ScriptProcesses(ScriptLimits(), metrics)
    books = load_rules([RULES], scripts, os.environ)
    held: list[int] = []
    began = said = time.monotonic()
    with SqliteLog.open(folder / "soak.db", SETTINGS, metrics) as log:
        engine = SqliteEngine(log, stages(lambda: books, scripts, metrics), metrics=metrics)
        engine.start()
        look_every = max(APPEND_RECORDS, count // LOOKS)
        waiting = uplinks_from(devices)
        for done in range(0, count, APPEND_RECORDS):
            log.append_blocking([next(waiting) for _ in range(min(APPEND_RECORDS, count - done))])
            while sum(log.lag().values()) > AHEAD_MAX:
                time.sleep(0.02)
            if done % look_every < APPEND_RECORDS:
                held.append(resident_bytes(os.getpid()))
            now = time.monotonic()
            if now - said >= SAY_EVERY_S:
                said = now
                say(done, now - began, held[-1], log.size_bytes)
        assert engine.drain(DRAIN_S), "not all was done in time"
        engine.stop()
        say(count, time.monotonic() - began, resident_bytes(os.getpid()), log.size_bytes)
    scripts.close()
    handled = metrics.values("funicular_stage_records_total")[("stage", "route"),]
    letters = sum(metrics.values("funicular_dead_letters_total").values())
    quarter = len(held) // 4
    medians = [statistics.median(held[n * quarter : (n + 1) * quarter]) for n in range(4)]
    _, before, _, after = medians
    sys.stdout.write(
        f"quarters {', '.join(f'{median / MIB:.0f}' for median in medians)} MiB: the last"
        f" {after / before:.3f} times the second; {handled:,.0f} of {count:,} handled,"
        f" {letters:,.0f} dead letters\n"
    )
    return after <= GROWTH_MAX * before and handled == count and not letters


def say(done: int, seconds: float, held: int, size: int) -> None:
    """Print one line."""
    sys.stdout.write(
        f"{done:>12,} uplinks  {done / max(seconds, 0.001):>8,.0f}/s  {held / MIB:>6.0f} MiB"
        f" resident  {size / MIB:>6.0f} MiB of log\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Run, and end with 1 where it failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uplinks", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the log is made")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tune_interpreter()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        if not soak(chosen.uplinks, chosen.devices, Path(folder)):
            sys.exit(1)


if __name__ == "__main__":
    main()
