"""Puts the rooms together: the one module that knows them all.

In: settings and rules folders. Out: a `Funicular`, the whole pipeline in one process on the
embedded log; and the catalogue by which the rulebook checks what the rooms will run.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from pipeline import topics
from pipeline.convert.stage import Convert
from pipeline.demo.news import News
from pipeline.downlink.stage import DownlinkStage
from pipeline.errors import ConfigError, Fault, FunicularError
from pipeline.ingest import Ingest, time_ordered_ids
from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.event import DeviceEvent
from pipeline.ports import Script, ScriptPort, Stage
from pipeline.route.parse import chain_schema, check_chains, parse_chain
from pipeline.route.stage import Route
from pipeline.route.turn import LogLine
from pipeline.rulebook.book import Rulebook, Rulebooks
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.load import load
from pipeline.script import ScriptFindings, ScriptProcesses, check_script
from pipeline.settings import Settings
from pipeline.sink.transport import config_models
from pipeline.sink.worker import Sinks
from pipeline.stream.engine import SqliteEngine
from pipeline.stream.sqlite import SqliteLog, wall_clock_ms

GAUGES_EVERY_S = 1.0
FEED_RECORDS_MAX = 500

_decode_event = msgspec.json.Decoder(DeviceEvent).decode
_decode_downlink = msgspec.json.Decoder(Downlink).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode

_log = structlog.get_logger("funicular")
_rules_log = structlog.get_logger("rules")


def catalogue(scripts: ScriptPort | None = None) -> Catalogue:
    """Return all that a rules folder may use; with `scripts`, scripts are compiled by the check."""
    check = None
    if isinstance(scripts, ScriptProcesses):
        processes = scripts

        def check(script: Script) -> ScriptFindings:
            return check_script(script, processes)

    return Catalogue(
        dialects=dialects(),
        sinks=config_models(),
        parse_chain=parse_chain,
        check_script=check,
        check_chains=check_chains,
        chain_schema=chain_schema(),
    )


def load_rules(
    folders: Sequence[Path], scripts: ScriptPort | None, env: Mapping[str, str] | None = None
) -> dict[str, Rulebook]:
    """Return the rulebooks by tenant. ConfigError: every fault of every folder."""
    books: dict[str, Rulebook] = {}
    faults: list[Fault] = []
    known = catalogue(scripts)
    for folder in folders:
        try:
            book = load(folder, known, os.environ if env is None else env)
        except ConfigError as error:
            faults += error.faults
            continue
        if book.tenant in books:
            other = books[book.tenant].folder
            message = f"tenant `{book.tenant}` is also that of {other}"
            faults.append(Fault(str(folder), 0, 0, message, "give each folder its own tenant"))
        books[book.tenant] = book
    if faults:
        raise ConfigError(faults)
    return books


def stages(rulebooks: Rulebooks, scripts: ScriptPort, metrics: Registry) -> list[Stage]:
    """Return the stages in the order of the flow."""
    return [
        Convert(rulebooks, scripts, metrics),
        Route(rulebooks, metrics, log=_say),
        DownlinkStage(rulebooks, scripts, metrics),
    ]


def _say(lines: Sequence[LogLine]) -> None:
    """Log what the `log` nodes of one batch said; many equal lines of a batch are one."""
    told = Counter((line.level, line.message, line.chain, line.node) for line in lines)
    devices = {(line.level, line.message, line.chain, line.node): line.device for line in lines}
    for key, times in told.items():
        level, message, chain, node = key
        more = {} if times == 1 else {"times": times}
        _rules_log.log(_LEVELS[level], message, chain=chain, node=node, device=devices[key], **more)


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LogFeed:
    """What the demo's view looks at: new records of the embedded log, and the metrics."""

    def __init__(self, log: SqliteLog, metrics: Registry, tenant: str) -> None:
        self._log = log
        self.metrics = metrics
        self._deliveries = topics.delivery_topic(tenant, "application")
        self._offsets: dict[str, int] = {}

    def poll(self) -> News:
        """Return what is new; at most `FEED_RECORDS_MAX` records of a topic a call."""
        return News(
            events=[_decode_event(value) for value in self._new(topics.DEVICE_EVENTS)],
            downlinks=[_decode_downlink(value) for value in self._new(topics.DOWNLINK_STATUS)],
            deliveries=[_decode_delivery(value) for value in self._new(self._deliveries)],
        )

    def _new(self, topic: str) -> Iterator[bytes]:
        records = self._log.scan(topic, self._offsets.get(topic, -1), FEED_RECORDS_MAX)
        if records:
            self._offsets[topic] = records[-1].offset
        return (record.value for record in records if record.value is not None)


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop where it is there: a tenth less CPU a request than asyncio's.

    Threads of stages compute while the committer's thread gives up the interpreter's lock at each
    step of SQLite; at Python's own switch interval of 5 ms an append beside a busy stage took
    38 ms, at this one 4 ms (`python -m tests.bench.log`).
    """
    sys.setswitchinterval(0.0005)
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


class Funicular:
    """The whole pipeline in one process: door, stages, sinks, on the embedded log.

    `start`, then `wait` or whatever else, then `stop`, on one event loop.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Registry | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Load the rules and open the log. ConfigError, UsageError: nothing was started.

        `env` is what `${env:…}` in the rules means; None: the process's own.
        """
        self.settings = settings
        self.metrics = metrics or Registry()
        self.scripts = ScriptProcesses(settings.scripts, self.metrics)
        try:
            self.books = load_rules(settings.rules, self.scripts, env)
            self.log = SqliteLog.open(settings.log_file, settings.log, self.metrics)
        except FunicularError:
            self.scripts.close()
            raise
        self.engine = SqliteEngine(
            self.log,
            stages(self.rulebooks, self.scripts, self.metrics),
            settings.engine,
            self.metrics,
        )
        self.sinks = Sinks(
            self.log, self.rulebooks, settings.sink, self.metrics, wall_clock_ms, random.random
        )
        self.door = Ingest(
            self.log,
            self.rulebooks,
            settings.ingest,
            self.metrics,
            time_ordered_ids(wall_clock_ms),
            wall_clock_ms,
            self._unready,
        )
        self._gauges: asyncio.Task[None] | None = None

    def rulebooks(self) -> Mapping[str, Rulebook]:
        """Return the rulebooks in force."""
        return self.books

    async def start(self) -> None:
        """Start from the end of the flow to its beginning. UsageError: the port is in use."""
        try:
            await self.sinks.start()
            self.engine.start()
            await self.door.start()
        except BaseException:
            await self.stop()
            raise
        self._gauges = asyncio.create_task(self._gauge())
        self._tell_what_nobody_sends()
        for tenant, book in self.books.items():
            _log.info(
                "running",
                tenant=tenant,
                rules=book.version,
                integrations=len(book.integrations),
                chains=len(book.chains),
                sinks=len(book.sinks),
            )

    async def wait(self) -> None:
        """Return never; raises what ended a part of the pipeline."""
        parts: list[asyncio.Future[Any]] = [asyncio.wrap_future(self.engine.failed)]
        if self.door.failed is not None:
            parts.append(self.door.failed)
        sinks = asyncio.ensure_future(self.sinks.failure())
        done, _ = await asyncio.wait([*parts, sinks], return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            if part is sinks:
                raise sinks.result()
            part.result()

    async def stop(self) -> None:
        """Stop from the beginning of the flow to its end; what is not done is kept in the log."""
        if self._gauges is not None:
            self._gauges.cancel()
        await self.door.stop()
        await asyncio.to_thread(self.engine.stop, self.settings.stop_timeout_s)
        await self.sinks.stop(self.settings.stop_timeout_s)
        await asyncio.to_thread(self.log.close)
        self.scripts.close()

    def _tell_what_nobody_sends(self) -> None:
        """Say where deliveries wait for a destination that the rules no longer have: they are kept
        until it is there again, and nothing else would tell of them.
        """
        served = {
            topics.delivery_topic(status.tenant, status.destination)
            for status in self.sinks.status()
        }
        for (topic, _), records in sorted(self.log.lag().items()):
            if records and topic.startswith(topics.DELIVERY_PREFIX) and topic not in served:
                _log.warning(
                    "deliveries wait for a destination that no rules have; they go out when it"
                    " is there again",
                    topic=topic,
                    records=records,
                )

    def _unready(self) -> str | None:
        if self.log.failed.done():
            return "the log has failed"
        return None if self.engine.running else "the stages do not run"

    async def _gauge(self) -> None:
        """Keep the gauges of `/metrics` fresh."""
        while True:
            for (topic, group), records in self.log.lag().items():
                self.metrics.set("funicular_lag_records", records, topic=topic, group=group)
            self.metrics.set("funicular_log_bytes", self.log.size_bytes)
            await asyncio.sleep(GAUGES_EVERY_S)
