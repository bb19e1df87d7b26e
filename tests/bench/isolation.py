"""What a sink feels when others are dead, slow, or answer 10 GB: its p99 while they are, and not.

    python -m tests.bench.isolation [--rate 100] [--seconds 2.5] [--rounds 8]

`http` sinks on the embedded log, the real worker, real sockets, receivers in a process of their
own: nobody listens (`dead`), a byte a second of the answer's head (`slow`), a head at once and
then a byte a second (`drip`), 10 GB as fast as they are taken (`flood`). Each gets as many
deliveries as the good one.

A round is one run beside these and one beside four others that are well, one after the other, each
in a process of its own; which comes first alternates, so that what else the machine does, and that
it does more or less of it as time goes on, falls on both alike. The medians of all rounds count.
How far two runs of one kind are apart says what the machine's unrest is. Two minutes.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
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
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        for number in range(rounds):
            order = (WELL, BAD) if number % 2 == 0 else (BAD, WELL)
            found = {
                names: processes.submit(_once, names, rate, seconds).result() for names in order
            }
            yield found[WELL], found[BAD]


def unrest(values: Sequence[float]) -> float:
    """Return by which part runs of one kind differ from the one before, in the middle."""
    return statistics.median(
        abs(later / earlier - 1) for earlier, later in itertools.pairwise(values)
    )


def main() -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--rounds", type=int, default=8, help="two or more")
    asked = parser.parse_args()
    found = list(rounds_of(asked.rate, asked.seconds, max(2, asked.rounds)))
    wells, bads = zip(*found, strict=True)
    well, bad = statistics.median(wells), statistics.median(bads)
    sys.stdout.write(
        f"{asked.rate:g} deliveries a second to each sink, {len(found)} rounds of {asked.seconds:g}"
        f" s; p99 of the good one: {1_000 * well:.1f} ms while the four others are well,"
        f" {1_000 * bad:.1f} ms while they are {', '.join(BAD)} ({bad / well - 1:+.0%}; medians)\n"
        f"runs of one kind are {unrest(wells):.0%} (well) and {unrest(bads):.0%} (bad) apart\n"
    )


if __name__ == "__main__":
    main()
