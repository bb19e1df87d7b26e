"""How long it takes until a command has done its work, or a process is ready.

    python -m tests.bench.start [--runs 5]

Medians of `--version`, `check` on the example rules (also the CPU time with its script processes),
`run` and, on a broker of its own, `worker` with all rooms, each until `/readyz` says so. Our code
is compiled to bytecode before, as pip does when it installs it.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tests.kafka.brokers import ROOT, Brokers, source
from tests.process.program import Program

RULES = ROOT / "rules"
ROOMS = ("ingest", "convert", "route", "downlink", "sink")


def command(*words: str) -> tuple[float, float]:
    """Run a command; return its seconds, and those of CPU."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words], cwd=ROOT, check=True, capture_output=True
    )
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ready(words: tuple[str, ...], env: dict[str, str]) -> float:
    """Return the seconds until a process takes messages."""

    async def wait(program: Program) -> None:
        async with aiohttp.ClientSession() as session:
            await program.ready(session)

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Program(RULES, Path(folder), env, words) as program:
            asyncio.run(wait(program))
            took = time.perf_counter() - began
            program.stop()
    return took


def on_kafka(runs: int) -> list[float]:
    """Return how long a worker takes on a broker, with topics that are there."""
    with Brokers.start(1) as brokers:
        env = {"FUNICULAR_LOG": f"kafka://{brokers.bootstrap}"}
        words = ("topics", "create", "-r", str(RULES))
        subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *words],
            cwd=ROOT, check=True, capture_output=True, env={**os.environ, **env},
        )  # fmt: skip
        return [ready(("worker", *ROOMS), env) for _ in range(runs)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    compileall.compile_dir(ROOT / "pipeline", quiet=1)

    def say(name: str, measure: Callable[[], list[float]]) -> None:
        sys.stdout.write(f"{statistics.median(measure()):7.2f} s  {name}\n")
        sys.stdout.flush()

    say("funicular --version", lambda: [command("--version")[0] for _ in range(runs)])
    checks = [command("check", str(RULES)) for _ in range(runs)]
    say("funicular check, the example rules", lambda: [took for took, _ in checks])
    say("… its CPU time", lambda: [cpu for _, cpu in checks])
    say("funicular run, until it is ready", lambda: [ready(("run",), {}) for _ in range(runs)])
    if source():
        say("funicular worker on Kafka, until it is ready", lambda: on_kafka(runs))
    else:
        sys.stdout.write("LEFT OUT: a worker on Kafka; neither Docker, nor java and mvn\n")


if __name__ == "__main__":
    main()
