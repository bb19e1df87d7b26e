"""`kill -9` of a program that appends and processes, again and again, on one log."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.stream import SqliteEngine, SqliteLog
from tests.contract.engine_harness import values
from tests.contract.kill_program import Copy, Count

ROOT = Path(__file__).parents[2]
KILLS = 5


def run_and_kill(path: Path, name: str, after_s: float) -> set[str]:
    """Start the program, kill it some time after its first append; return what it said it wrote."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.kill_program", str(path), name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert program.stdout is not None
    killer = threading.Timer(after_s, program.kill)
    with program.stdout as stdout:
        said = stdout.readline()
        killer.start()
        said += stdout.read()
    program.wait()
    killer.join()
    # A line that was cut by the kill says nothing.
    return {line.decode() for line in said.split(b"\n")[:-1]}


@pytest.mark.process
def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Each append that returned is there once; each record was counted, passed on and confirmed
    by its timer exactly once, in order; the state says the same.
    """
    path = tmp_path / "log.db"
    chance = random.Random(1)
    said: set[str] = set()
    for number in range(KILLS):
        said |= run_and_kill(path, f"r{number}", chance.uniform(0.05, 0.6))
    assert len(said) > KILLS

    with SqliteLog.open(path) as log:
        engine = SqliteEngine(log, [Count(), Copy()])
        engine.start()
        assert engine.drain(30)
        until = time.monotonic() + 10
        with log.peek(path) as view:
            while view.timers("count") and time.monotonic() < until:
                assert engine.drain(30)
        assert engine.stop()
        total = log.last_offset("in") + 1
        received = values(log.scan("in", limit=total))
        out = log.scan("out", limit=total + 1)
        fired = values(log.scan("fired", limit=total + 1))
        with log.peek(path) as view:
            state = view.state("count")
    assert said <= set(received)
    assert len(received) == len(set(received))
    assert values(out) == received
    assert Counter(fired) == Counter(received)
    seen: Counter[str] = Counter()
    for found in out:
        seen[found.key] += 1
        assert found.headers["number"] == str(seen[found.key])
    assert {key: parts["count"] for key, parts in state.items()} == seen
