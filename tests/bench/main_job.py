"""The job of `tests/bench/peers/job.py` on the embedded log, all stages in this process.

    python -m tests.bench.main_job [--uplinks 20000] [--runs 5] [--devices 2000] [--codec js|lua]
                                   [--parts | --calls]

Uplinks wait in `uplink.received`; measured until all stages have committed what came of them. Door
and sinks are not part of it. Prints medians: uplinks a second by the clock, and CPU time an uplink
of this process and its script process.

`--parts` runs the stages one after the other in one thread, so that no part waits for another, and
prints the CPU time an uplink of each: the lower quartile over batches, which a busy machine
disturbs least. `--calls` counts in the same way how many functions an uplink calls, of Python and
of C: no machine disturbs that.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import topics
from pipeline.interpreter import tune_interpreter
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.script import ScriptLimits, ScriptProcesses
from pipeline.stream import database
from pipeline.stream.engine import SqliteEngine
from pipeline.stream.runner import StageRunner
from pipeline.stream.sqlite import SqliteLog
from pipeline.stream.state_cache import StateCache
from pipeline.wiring import load_rules, stages
from tests.bench.peers.job import downlinks_of, uplink

RULES = Path(__file__).parent / "peers" / "rules"
APPEND_RECORDS = 2_000
DRAIN_S = 900.0
IDLE_S = 0.0001  # what a look takes that finds nothing


def uplinks_from(devices: int, codec: str = "js") -> Iterator[Outgoing]:
    """Yield records as the door makes them, without end."""
    for number in itertools.count():
        each = uplink(number, devices, codec)
        headers = {name: value.decode() for name, value in each.headers}
        yield Outgoing(topics.UPLINK_RECEIVED, each.key, each.value, headers)


def uplinks(count: int, devices: int, codec: str = "js") -> list[Outgoing]:
    """Return the first of them."""
    return list(itertools.islice(uplinks_from(devices, codec), count))


def cpu_s() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    own, ended = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


@contextmanager
def engine(records: list[Outgoing], metrics: Registry) -> Iterator[tuple[SqliteEngine, SqliteLog]]:
    """Give an engine with all stages, not started, and its log with the records in it."""
    with tempfile.TemporaryDirectory() as folder:
        scripts = ScriptProcesses(ScriptLimits(), metrics)
        books = load_rules([RULES], scripts, os.environ)
        with SqliteLog.open(Path(folder) / "bench.db", metrics=metrics) as log:
            for start in range(0, len(records), APPEND_RECORDS):
                log.append_blocking(records[start : start + APPEND_RECORDS])
            made = SqliteEngine(log, stages(lambda: books, scripts, metrics), metrics=metrics)
            try:
                yield made, log
            finally:
                made.stop()
                scripts.close()


def by_stage(metrics: Registry) -> Counter[str]:
    """Return how many records each stage has handled; on Kafka, of all partitions."""
    found: Counter[str] = Counter()
    for labels, count in metrics.values("funicular_stage_records_total").items():
        found[dict(labels)["stage"]] += int(count)
    return found


def check(metrics: Registry, count: int, devices: int) -> None:
    """Raise AssertionError where not everything was done."""
    records = by_stage(metrics)
    assert records["convert"] == records["route"] == count
    assert records["downlink"] == downlinks_of(count, devices)
    assert not metrics.values("funicular_dead_letters_total")


def run(records: list[Outgoing], devices: int) -> tuple[float, float]:
    """Return seconds and CPU seconds of one run."""
    metrics = Registry()
    with engine(records, metrics) as (running, _):
        cpu, wall = cpu_s(), time.perf_counter()
        running.start()
        assert running.drain(DRAIN_S)
        wall = time.perf_counter() - wall
    cpu = cpu_s() - cpu
    check(metrics, len(records), devices)
    return wall, cpu


Watch = Callable[[Callable[..., Any], list[float], StageRunner], Callable[..., Any]]
"""Given a function of a runner, returns one in its place that adds what a batch cost to a list."""


def run_parts(records: list[Outgoing], devices: int, watch: Watch) -> dict[str, list[float]]:
    """Return what `watch` saw of each batch, by part."""
    metrics = Registry()
    found: dict[str, list[float]] = defaultdict(list)
    with engine(records, metrics) as (made, log):
        runners = made._runners
        for runner in runners:
            prepare(runner, log)
            for part, owner, name in (
                ("read", runner._cursor, "read"),
                ("handle", runner, "_handle"),
                ("encode and commit", runner, "_commit"),
            ):
                wanted = f"{runner.stage.name}: {part}"
                setattr(owner, name, watch(getattr(owner, name), found[wanted], runner))
        busy = True
        while busy:
            busy = sum(runner._step() for runner in runners) > 0
        for runner in runners:
            runner._connection.close()
    check(metrics, len(records), devices)
    return found


def prepare(runner: StageRunner, log: SqliteLog) -> None:
    """Do what the runner's thread does first."""
    settings = runner._settings
    runner._connection = database.connect(log.path)
    runner._cache = StateCache(
        runner._connection, runner.stage.name, settings.state_keys_max, settings.state_bytes_max
    )
    runner._next_due = runner._find_next_due()


def _timed(
    function: Callable[..., Any], found: list[float], runner: StageRunner
) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        before = time.process_time()
        result = function(*arguments)
        took = time.process_time() - before
        # A batch of convert is full, and each stage has what came of one of those.
        if took > IDLE_S:
            found.append(took / runner._settings.records_max)
        return result

    return timed


def _counted(
    function: Callable[..., Any], found: list[float], runner: StageRunner
) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            return function(*arguments)
        finally:
            sys.setprofile(None)
            if calls > runner._settings.records_max:  # else there was no batch
                found.append(calls / runner._settings.records_max)

    return counted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uplinks", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--codec", choices=("js", "lua"), default="js")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--calls", action="store_true")
    chosen = parser.parse_args()
    tune_interpreter()
    records = uplinks(chosen.uplinks, chosen.devices, chosen.codec)
    size = sum(len(record.value or b"") for record in records) / len(records)
    say = sys.stdout.write
    say(f"{chosen.uplinks:,} uplinks of {size:.0f} bytes, {chosen.devices:,} devices,")
    say(f" {chosen.runs} runs\n")
    if chosen.parts or chosen.calls:
        watch, times, unit = (_counted, 1.0, "calls") if chosen.calls else (_timed, 1e6, "µs")
        parts: dict[str, list[float]] = defaultdict(list)
        for _ in range(chosen.runs):
            for part, taken in run_parts(records, chosen.devices, watch).items():
                parts[part] += taken
        for part, taken in parts.items():
            quartile = statistics.quantiles(taken, n=4)[0] if len(taken) > 1 else sum(taken)
            say(f"{quartile * times:7.1f} {unit}  {part}\n")
        return
    results = [run(records, chosen.devices) for _ in range(chosen.runs)]
    rates = [chosen.uplinks / wall for wall, _ in results]
    cpus = [cpu / chosen.uplinks * 1e6 for _, cpu in results]
    say(f"uplinks/s: median {statistics.median(rates):,.0f}")
    say(f" (min {min(rates):,.0f}, max {max(rates):,.0f})\n")
    say(f"CPU µs an uplink: median {statistics.median(cpus):.1f} (min {min(cpus):.1f})\n")


if __name__ == "__main__":
    main()
