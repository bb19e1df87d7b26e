"""One bench from its load's first uplink until nothing waits any more.

In: where the door listens, the load, the worker's metrics and what its sinks counted. Out: a
`BenchResult`; `Progress` on the way.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from pipeline import __version__, topics
from pipeline.errors import RetryableError
from pipeline.metrics import Registry
from pipeline.rehearse.bench_load import Load, Told, warm_up_s
from pipeline.rehearse.bench_result import BenchResult, percentiles
from pipeline.rehearse.bench_sink import Counted

LOOK_EVERY_S = 0.1
QUIET_S = 1.5
"""So long nothing must move until it is taken for done: gauges of what waits are a second old."""
QUIET_LONG_S = 5.0
"""The same where something seems to wait: on Kafka the marks of transactions count as records."""
LINE_BYTES_MAX = 16 << 20

_WORKED_OFF = {topics.UPLINK_RECEIVED, topics.DEVICE_EVENTS, topics.DOWNLINK_REQUESTED}
_decode = msgspec.json.Decoder(Told).decode


class Progress(msgspec.Struct, frozen=True):
    """Where a bench is: `told` by the load; records by stage, deliveries, what waits."""

    told: Told
    stages: dict[str, int]
    deliveries: int
    waiting: int
    seconds: float


class Bench:
    """Made once a bench. `log` is what it runs on, in words; `drain_s` how long the work may go on
    after the load has ended.
    """

    def __init__(
        self, load: Load, metrics: Registry, counted: Counted, *, log: str, drain_s: float
    ) -> None:
        self._load = load
        self._metrics = metrics
        self._counted = counted
        self._log = log
        self._drain_s = drain_s
        self._told = Told(0, {})
        self._began = time.perf_counter()
        self._moved = self._began
        self._seen: tuple[int, ...] = ()

    async def run(self, show: Callable[[Progress], None]) -> BenchResult:
        """Return the result; `show` is called with each look. RetryableError: the load ended
        before its time.
        """
        own, children = _cpu_s(resource.RUSAGE_SELF), _cpu_s(resource.RUSAGE_CHILDREN)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline.rehearse.bench_load"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        hearing = asyncio.create_task(self._hear(process))
        try:
            drained = await self._follow(hearing, show)
        finally:
            hearing.cancel()
            if process.returncode is None:
                process.kill()
            await process.wait()
        own = _cpu_s(resource.RUSAGE_SELF) - own
        children = _cpu_s(resource.RUSAGE_CHILDREN) - children - self._told.cpu_s
        return self._result(drained=drained, cpu_s=own + max(0.0, children))

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(self._load) + b"\n")
        await process.stdin.drain()
        while line := await process.stdout.readline():
            if not self._told.sent:
                self._start()
            self._told = _decode(line)
        if not self._told.ended:
            raise RetryableError("the process that sends the load has ended before its time")

    def _start(self) -> None:
        self._began = self._moved = time.perf_counter()
        self._counted.since_ms += round(warm_up_s(self._load) * 1_000)

    async def _follow(self, hearing: asyncio.Task[None], show: Callable[[Progress], None]) -> bool:
        """Look until all is done; False: it took too long."""
        until: float | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if hearing.done():
                hearing.result()
            now = time.perf_counter()
            progress = self._look(now)
            show(progress)
            if not self._told.ended:
                continue
            until = until or now + self._drain_s
            quiet_s = QUIET_LONG_S if progress.waiting else QUIET_S
            all_in = progress.stages.get("convert", 0) >= _taken(self._told)
            if all_in and now - self._moved >= quiet_s:
                return True
            if now > until:
                return False

    def _look(self, now: float) -> Progress:
        stages: Counter[str] = Counter()  # on Kafka there is a series for each partition
        for labels, count in self._metrics.values("funicular_stage_records_total").items():
            stages[dict(labels)["stage"]] += int(count)
        deliveries = self._counted.deliveries.total()
        seen = (self._told.sent, deliveries, *stages.values())
        if seen != self._seen:
            self._seen, self._moved = seen, now
        return Progress(self._told, stages, deliveries, self._waiting(), now - self._began)

    def _waiting(self) -> int:
        """Return how many records wait for a stage or a sink, as of the last look at the log."""
        waiting = 0
        for labels, count in self._metrics.values("funicular_lag_records").items():
            topic = dict(labels)["topic"]
            if topic in _WORKED_OFF or topic.startswith(topics.DELIVERY_PREFIX):
                waiting += int(count)
        return waiting

    def _result(self, *, drained: bool, cpu_s: float) -> BenchResult:
        load, told, counted = self._load, self._told, self._counted
        uplinks = _taken(told)
        letters: Counter[str] = Counter()
        for labels, count in self._metrics.values("funicular_dead_letters_total").items():
            named = dict(labels)
            letters[f"{named['stage']}: {named['reason']}"] += int(count)
        handled_s = max(self._moved - self._began, 0.001)
        refused = {str(s): n for s, n in sorted(told.answers.items()) if not 200 <= s < 300}
        return BenchResult(
            log=self._log,
            rate=load.rate,
            seconds=load.seconds,
            devices=load.devices,
            uplinks=uplinks,
            refused=refused,
            uplinks_a_second=uplinks / max(told.seconds, 0.001),
            handled_s=handled_s,
            handled_a_second=uplinks / handled_s,
            drained=drained,
            deliveries=dict(counted.deliveries),
            downlinks=counted.downlinks,
            dead_letters=dict(letters),
            cpu_us=cpu_s / max(uplinks, 1) * 1e6,
            door_ms=percentiles(told.waits_ms),
            door_to_sink_ms=percentiles(counted.took_ms),
            funicular=__version__,
            python=platform.python_version(),
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            samples={source.integration: source.said for source in load.sources},
            warnings=tuple(source.warning for source in load.sources if source.warning),
        )


def _taken(told: Told) -> int:
    return sum(count for status, count in told.answers.items() if 200 <= status < 300)


def _cpu_s(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime
