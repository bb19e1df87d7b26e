"""An hour's outage of one sink under full load, and what the other sink feels of it.

    python -m tests.bench.outage [--rate 400] [--outage 24] [--compress 150] [--rounds 3]

Two `http` sinks on the embedded log, the real worker, real sockets, receivers in a process of
their own. One of them goes away for an hour, as retries count it: time is compressed by the
worker's clock, so that all waits, pauses and their jitter are those of an hour, while the load
comes at the machine's real pace. Then it is back, and the backlog goes out; and so again, calm
times and outages by turns. Times are medians of the rounds, counts are of all of them. Two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.record import Outgoing, device_key
from pipeline.rulebook.book import Rulebook, SinkEntry
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.http import HttpConfig
from pipeline.sink.settings import SinkSettings
from pipeline.sink.worker import Sinks
from pipeline.stream.settings import LogSettings
from pipeline.stream.sqlite import SqliteLog, wall_clock_ms
from pipeline.topics import delivery_topic
from tests.bench.receivers import Got, Receivers

TENANT = "bench"
DEVICES = 200
TICK_S = 0.02
STOP_S = 0.5
_encode = msgspec.json.Encoder().encode


class CompressedClock:
    """`pipeline.sink.clock.Clock`, in which `factor` seconds pass in one."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def monotonic(self) -> float:
        return time.monotonic() * self._factor

    async def wait(self, event: asyncio.Event, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(None if timeout_s is None else timeout_s / self._factor):
                await event.wait()
        except TimeoutError:
            return


class Load:
    """Appends so many deliveries a second to each of some sinks, as route does."""

    def __init__(self, log: SqliteLog, sinks: list[str], rate: float) -> None:
        self.sent = 0
        self._log = log
        self._sinks = sinks
        self._rate = rate

    async def run(self, seconds: float) -> None:
        began, first = time.monotonic(), self.sent
        while (passed := time.monotonic() - began) < seconds:
            due = first + int(passed * self._rate)
            at = time.time()
            records = [
                _outgoing(sink, number, at)
                for number in range(self.sent, due)
                for sink in self._sinks
            ]
            self.sent = max(self.sent, due)
            if records:
                await self._log.append(records)
            await asyncio.sleep(TICK_S)


def _outgoing(sink: str, number: int, at: float) -> Outgoing:
    device = f"device-{number % DEVICES}"
    body = {"n": number, "device": device, "at": at, "telemetry": {"temperature": 21.5}}
    delivery = Delivery(f"d{number}", TENANT, device, sink, int(at * 1_000), body)
    return Outgoing(
        topic=delivery_topic(TENANT, sink),
        key=device_key(TENANT, device),
        value=_encode(delivery),
        headers={},
    )


@asynccontextmanager
async def sinks_of(
    log: SqliteLog, ports: dict[str, int], clock: Any, commit_interval_s: float, **config: Any
) -> AsyncIterator[Sinks]:
    """Run the worker with an `http` sink a port, of the port's name."""
    entries = {
        name: SinkEntry(TENANT, name, "http", HttpConfig(url=f"http://127.0.0.1:{port}/", **config))
        for name, port in ports.items()
    }
    book = Rulebook(TENANT, Path(), "1", {}, {}, {}, entries)
    settings = SinkSettings(commit_interval_s=commit_interval_s, allowed_networks=LOOPBACK)
    sinks = Sinks(
        log, lambda: {TENANT: book}, settings, Registry(), wall_clock_ms, random.random, clock=clock
    )
    await sinks.start()
    try:
        yield sinks
    finally:
        await sinks.stop(STOP_S)


@dataclass
class Round:
    """One outage: how many waited, when the destination was found again, when all had gone out."""

    gone: float
    back: float
    backlog: int
    drained: float = 0.0


@dataclass
class Figures:
    """What was seen. Counts are of all rounds, times medians of them, in real seconds;
    `p99_s` of the other sink: before an outage, while, after.
    """

    sent: int
    lost: int
    doubled: int
    out_of_order: int
    backlog: int
    noticed_s: float
    drain_s: float
    first_100_ms: int
    at_once_max: int
    p99_s: tuple[float, float, float]


def p99(seconds: list[float]) -> float:
    """Return the 99th percentile."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def out_of_order(got: Got) -> int:
    """Return how often a device's delivery came that was older than one before it."""
    newest: dict[str, int] = defaultdict(lambda: -1)
    found = 0
    for number, device, _, _ in got.rows:
        found += number < newest[device]
        newest[device] = max(newest[device], number)
    return found


async def measure(
    folder: Path, *, rate: float, before_s: float, outage_s: float, compress: float, rounds: int = 1
) -> Figures:
    """Run it. The log is on the disk below `folder`."""
    with (
        Receivers() as receivers,
        SqliteLog.open(folder / "log.db", LogSettings(), Registry(), wall_clock_ms) as log,
    ):
        ports = {name: receivers.ports[name] for name in ("switch", "fine")}
        clock = CompressedClock(compress)
        async with sinks_of(log, ports, clock, 0.2 * compress):
            load = Load(log, list(ports), rate)
            seen = []
            for _ in range(rounds):
                await load.run(before_s)
                seen.append(await _outage(receivers, load, rate, outage_s))
            for name in ports:
                await _all_came(receivers, name, load.sent)
        switch: Got = await receivers.tell("take", "switch")
        fine: Got = await receivers.tell("take", "fine")
    return _figures(seen, switch, fine, load.sent)


async def _outage(receivers: Receivers, load: Load, rate: float, outage_s: float) -> Round:
    """Let the destination be away, and come back; the load goes on until the backlog is gone."""
    await receivers.tell("close", "switch")
    gone = time.time()
    await load.run(outage_s)
    backlog = load.sent - await receivers.tell("count", "switch")
    await receivers.tell("open", "switch")
    one = Round(gone, time.time(), backlog)
    while load.sent - await receivers.tell("count", "switch") >= rate / 2:
        await load.run(0.5)
    one.drained = time.time()
    return one


def _figures(rounds: list[Round], switch: Got, fine: Got, sent: int) -> Figures:
    numbers = [number for number, *_ in switch.rows]
    arrivals = sorted(at for *_, at in switch.rows)
    firsts = [next(at for at in arrivals if at > one.back) for one in rounds]
    delays = [(at, arrived - at) for *_, at, arrived in fine.rows]
    calm = [0.0, *(one.drained for one in rounds)]
    return Figures(
        sent=sent,
        lost=2 * sent - len(set(numbers)) - len({number for number, *_ in fine.rows}),
        doubled=len(numbers) - len(set(numbers)),
        out_of_order=out_of_order(switch) + out_of_order(fine),
        backlog=round(statistics.median(one.backlog for one in rounds)),
        noticed_s=_middle(first - one.back for first, one in zip(firsts, rounds, strict=True)),
        drain_s=_middle(one.drained - first for first, one in zip(firsts, rounds, strict=True)),
        first_100_ms=max(sum(first <= at < first + 0.1 for at in arrivals) for first in firsts),
        at_once_max=switch.at_once_max,
        p99_s=(
            _p99_of(delays, [(calm[n], one.gone) for n, one in enumerate(rounds)]),
            _p99_of(delays, [(one.gone, one.back) for one in rounds]),
            _p99_of(delays, [(one.back, one.drained) for one in rounds]),
        ),
    )


def _p99_of(delays: list[tuple[float, float]], spans: list[tuple[float, float]]) -> float:
    """Return the median of the p99 of some spans of time."""
    return _middle(
        p99([delay for at, delay in delays if begin <= at < end]) for begin, end in spans
    )


def _middle(values: Iterable[float]) -> float:
    return statistics.median(values)


async def _all_came(receivers: Receivers, name: str, sent: int) -> None:
    async with asyncio.timeout(60):
        while await receivers.tell("count", name) < sent:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.05)


def say(figures: Figures, asked: argparse.Namespace) -> None:
    """Print them."""
    hour_s = asked.outage * asked.compress
    before, during, after = (f"{1_000 * value:.0f} ms" for value in figures.p99_s)
    sys.stdout.write(
        f"{figures.sent:,} deliveries to each of two sinks, {asked.rate:g} a second; {asked.rounds}"
        f" times one was away for {asked.outage:g} s, {hour_s / 60:.0f} minutes to its retries\n"
        f"lost {figures.lost}, out of order {figures.out_of_order}, sent twice {figures.doubled}\n"
        f"backlog {figures.backlog:,}; noticed {figures.noticed_s * asked.compress:.0f} s of that"
        f" hour after it was back; drained in {figures.drain_s:.1f} s"
        f" ({figures.backlog / figures.drain_s + asked.rate:,.0f} a second)\n"
        f"no stampede: {figures.first_100_ms} requests in the first 100 ms, never more than"
        f" {figures.at_once_max} at once\n"
        f"the other sink's p99: {before} before, {during} during the outage, {after} while the"
        " backlog went out\n"
    )


def main() -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=400)
    parser.add_argument("--before", type=float, default=8)
    parser.add_argument("--outage", type=float, default=24, help="real seconds")
    parser.add_argument("--compress", type=float, default=150, help="60: an hour is a minute")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(
            measure(
                Path(folder),
                rate=asked.rate,
                before_s=asked.before,
                outage_s=asked.outage,
                compress=asked.compress,
                rounds=asked.rounds,
            )
        )
    say(figures, asked)


if __name__ == "__main__":
    main()
