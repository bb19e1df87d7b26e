"""What a sink feels when others are dead, slow, or answer 10 GB: its p99 while they are, and not.

    python -m tests.bench.isolation [--rate 100] [--seconds 4] [--rounds 8]

`http` sinks on the embedded log, the real worker, real sockets, receivers in a process of their
own: nobody listens (`dead`), a byte a second of the answer's head (`slow`), a head at once and
then a byte a second (`drip`), 10 GB as fast as they are taken (`flood`). Each gets as many
deliveries as the good one. Beside it, at the same time and in processes of its own, runs the same
with four others that are well, so that whatever else the machine does delays both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog
import uvloop

from pipeline.metrics import Registry
from pipeline.stream.settings import LogSettings
from pipeline.stream.sqlite import SqliteLog, wall_clock_ms
from tests.bench.outage import CompressedClock, Load, p99, sinks_of
from tests.bench.receivers import Receivers

BAD = ("dead", "slow", "drip", "flood")
WELL = ("good-1", "good-2", "good-3", "good-4")
SETTLING_S = 1.0
"""Not measured: connections are made, the bad ones fail for the first time."""


async def once(names: tuple[str, ...], rate: float, seconds: float) -> float:
    """Return the good sink's p99, in seconds, where `names` are there beside it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Receivers() as receivers,
        SqliteLog.open(Path(folder) / "log.db", LogSettings(), Registry(), wall_clock_ms) as log,
    ):
        ports = {name: receivers.ports[name] for name in ("fine", *names)}
        async with sinks_of(log, ports, CompressedClock(1), 0.2):
            load = Load(log, list(ports), rate)
            await load.run(SETTLING_S)
            await receivers.tell("take", "fine")
            first = load.sent
            await load.run(seconds)
            last = load.sent
            while await receivers.tell("count", "fine") < (last - first) * 0.999:
                await load.run(0.1)
        got = await receivers.tell("take", "fine")
    return p99([arrived - sent for number, _, sent, arrived in got.rows if first <= number < last])


def _once(names: tuple[str, ...], rate: float, seconds: float) -> float:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    return uvloop.run(once(names, rate, seconds))


def rounds_of(rate: float, seconds: float, rounds: int) -> Iterator[tuple[float, float]]:
    """Yield the p99 beside well ones and beside bad ones, round by round."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        for _ in range(rounds):
            both = [processes.submit(_once, names, rate, seconds) for names in (WELL, BAD)]
            well, bad = (one.result() for one in both)
            yield well, bad


def main() -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    found = list(rounds_of(asked.rate, asked.seconds, asked.rounds))
    well, bad = (statistics.median(column) for column in zip(*found, strict=True))
    change = statistics.median(second / first for first, second in found)
    sys.stdout.write(
        f"{asked.rate:g} deliveries a second to each sink, {asked.rounds} rounds; p99 of the good"
        f" one: {1_000 * well:.1f} ms while the four others are well, {1_000 * bad:.1f} ms while"
        f" they are {', '.join(BAD)} (medians; the median change of a round is {change - 1:+.0%})\n"
    )


if __name__ == "__main__":
    main()
