"""Puts the rooms together: the one module that knows them all.

In: settings and rules folders. Out: a `Funicular`, the whole pipeline in one process on the
embedded log; and the catalogue by which the rulebook checks what the rooms will run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import topics
from pipeline.backbone import Backbone, Embedded, OnKafka, kafka_settings
from pipeline.convert.codec_port import CodecPort
from pipeline.convert.codecs.codec import codec_models
from pipeline.convert.stage import Convert
from pipeline.downlink.stage import DownlinkStage
from pipeline.errors import ConfigError, Fault, FunicularError, UsageError
from pipeline.ingest.ids import time_ordered_ids
from pipeline.ingest.source import Outside, connection_models
from pipeline.integrations.dialect import dialects
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptPort, Stage
from pipeline.rehearse.chain_test_config import ChainTestsConfig
from pipeline.rehearse.chain_test_files import check_tests
from pipeline.route.parse import chain_schema, check_chains, parse_chain
from pipeline.route.stage import Route
from pipeline.route.turn import LogLine
from pipeline.rulebook.book import Rulebook, Rulebooks
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.load import load
from pipeline.rulebook.reload import Reload
from pipeline.rulebook.watch import FolderWatch, RulesSource
from pipeline.script import ScriptFindings, ScriptLimits, ScriptProcesses, check_script
from pipeline.settings import EMBEDDED, Settings
from pipeline.sink.asking import Asker, fetchers
from pipeline.sink.transport import config_models
from pipeline.sink.worker import Sinks, WayOut
from pipeline.stream.sqlite import SqliteLog, wall_clock_ms

if TYPE_CHECKING:
    from pipeline.ingest.ingest import Ingest
    from pipeline.ingest.status import StatusServer

ROOMS = ("ingest", "convert", "route", "downlink", "sink")
GAUGES_EVERY_S = 1.0
Console = Callable[[Script, Sequence[str]], None]

_log = get_logger("funicular")
_rules_log = get_logger("rules")


def script_port(
    limits: ScriptLimits, metrics: Registry, console: Console | None = None
) -> CodecPort:
    """Return what runs converters: scripts in child processes, codecs without a script here.

    `console` is given what scripts print.
    """
    return CodecPort(ScriptProcesses(limits, metrics, console))


def catalogue(scripts: ScriptPort | None = None) -> Catalogue:
    """Return all that a rules folder may use; with `scripts`, scripts are compiled by the check."""
    check = expect = None
    processes = _processes(scripts)
    if processes is not None:
        expect = processes.expect

        def check(script: Script) -> ScriptFindings:
            return check_script(script, processes)

    return Catalogue(
        dialects=dialects(),
        sinks=config_models(),
        transports=connection_models(),
        codecs=codec_models(),
        parse_chain=parse_chain,
        check_script=check,
        expect_scripts=expect,
        check_chains=check_chains,
        chain_schema=chain_schema,
        check_tests=check_tests,
        test_model=ChainTestsConfig,
        templates=_templates(),
    )


@cache
def _templates() -> dict[str, bytes]:
    """Return the templates of sinks that come with Funicular: name → YAML."""
    folder = Path(__file__).parent / "templates"
    return {file.stem: file.read_bytes() for file in sorted(folder.glob("*.yaml"))}


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
    processes = _processes(scripts)
    if processes is not None:
        processes.rest()  # rules seldom change, and each process holds 15 MB
    if faults:
        raise ConfigError(faults)
    return books


def _processes(scripts: ScriptPort | None) -> ScriptProcesses | None:
    if isinstance(scripts, CodecPort) and isinstance(scripts.scripts, ScriptProcesses):
        return scripts.scripts
    return None


def stages(
    rulebooks: Rulebooks, scripts: ScriptPort, metrics: Registry, default_integration: str = ""
) -> list[Stage]:
    """Return the stages in the order of the flow.

    `default_integration` (`tenant/integration`) is whose a record of `uplink.received` is that
    says nothing itself: another Kafka client may have written it.
    """
    return [
        Convert(rulebooks, scripts, metrics, default_integration=default_integration),
        Route(rulebooks, metrics, log=_say, scripts=scripts),
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


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop where it is there: a tenth less CPU a request than asyncio's."""
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _source(settings: Settings) -> RulesSource | None:
    """Return where edited rules come from; None: nobody looks."""
    if settings.follows_topic:
        from pipeline.stream.kafka_rules import RulesFollower  # noqa: PLC0415 - an extra

        return RulesFollower(kafka_settings(settings), settings.data / "rules")
    return FolderWatch(settings.rules) if settings.watch else None


class Funicular:
    """The pipeline, or some of its rooms, in one process.

    `start`, then `wait` or whatever else, then `stop`, on one event loop.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Registry | None = None,
        env: Mapping[str, str] | None = None,
        rooms: Collection[str] = ROOMS,
        *,
        books: Mapping[str, Rulebook] | None = None,
        way_out: WayOut | None = None,
    ) -> None:
        """Load the rules and open the log. ConfigError, UsageError: nothing was started.

        `env` is what `${env:…}` in the rules means; None: the process's own. `rooms` are those
        that this process runs; the embedded log needs all of them in one. `books` are rules that
        are loaded already; `way_out` takes the place of all sinks' transports (`sink.worker`).
        """
        self.settings = settings
        self.metrics = metrics or Registry()
        self.rooms = frozenset(rooms)
        embedded = settings.log_url == EMBEDDED
        if embedded and self.rooms != set(ROOMS):
            raise UsageError("the embedded log runs all rooms in one process; give --log kafka://…")
        self.scripts = script_port(settings.scripts, self.metrics)
        try:
            # Before the rules are loaded: what is edited meanwhile is not to be missed.
            source = _source(settings)
            folders = () if settings.follows_topic else settings.rules
            self.books = self._coming = (
                load_rules(folders, self.scripts, env) if books is None else dict(books)
            )
            made = stages(
                self.rulebooks,
                self.scripts,
                self.metrics,
                "" if embedded else kafka_settings(settings).default_integration,
            )
            run = [stage for stage in made if stage.name in self.rooms]
            edges = bool(self.rooms & {"ingest", "sink"})
            self._backbone: Backbone = (
                Embedded(settings, self.metrics, run)
                if embedded
                else OnKafka(settings, self.metrics, run, edges=edges, rules=self._rules_place)
            )
        except FunicularError:
            self.scripts.close()
            raise
        except ImportError as error:
            self.scripts.close()
            raise UsageError(
                f"{settings.log_url.partition(':')[0]} needs {error.name}:"
                " pip install 'funicular[kafka]' (or [faust])"
            ) from None
        self._asker = Asker(settings.sink)
        self.door, self.sinks, self.status = self._edges(way_out)
        self._started = False
        self._gauges: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._source = source
        self._reload = None if source is None else self._reloading(source, env)

    def _edges(
        self, way_out: WayOut | None
    ) -> tuple[Ingest | None, Sinks | None, StatusServer | None]:
        # Their servers take a quarter of the start of commands that only read rules.
        from pipeline.ingest.ingest import Ingest  # noqa: PLC0415
        from pipeline.ingest.status import StatusServer  # noqa: PLC0415

        log, settings = self._backbone.log, self.settings
        sinks = None
        if log is not None and "sink" in self.rooms:
            # They see new rules first, so that whatever these send finds its destination.
            sinks = Sinks(
                log,
                lambda: self._coming,
                settings.sink,
                self.metrics,
                wall_clock_ms,
                random.random,
                way_out=way_out,
            )
        if log is None or "ingest" not in self.rooms:
            server = StatusServer(
                settings.host, settings.port, self.metrics, self._backbone.unready
            )
            return None, sinks, server
        door = Ingest(
            log,
            self.rulebooks,
            settings.ingest,
            self.metrics,
            time_ordered_ids(wall_clock_ms),
            wall_clock_ms,
            self._backbone.unready,
            self._asker,
            self._backbone.letters,
            Outside(self._backbone.leases, fetchers(settings.sink)),
        )
        return door, sinks, None

    @property
    def log(self) -> SqliteLog:
        """The embedded log. UsageError: there is none."""
        if not isinstance(self._backbone, Embedded):
            raise UsageError("this needs the embedded log")
        return self._backbone.log

    def rulebooks(self) -> Mapping[str, Rulebook]:
        """Return the rulebooks in force."""
        return self.books

    def _rules_place(self) -> int:
        return 0 if self._reload is None else self._reload.place

    def _reloading(self, source: RulesSource, env: Mapping[str, str] | None) -> Reload:
        def load_one(folder: Path) -> Rulebook:
            (book,) = load_rules([folder], self.scripts, env).values()
            return book

        books = {str(book.folder): book for book in self.books.values()}
        return Reload(source, load_one, self._use, self.metrics, books)

    async def _use(self, books: Mapping[str, Rulebook]) -> None:
        """Put rules into force: first where they send to, then the stages, between two batches."""
        await self._backbone.prepare(books)
        if self._started and self.sinks is not None:
            self._coming = dict(books)
            try:
                await self.sinks.refresh()
            except BaseException:
                self._coming = self.books
                raise
        self.books = self._coming = dict(books)
        if self._started and self.door is not None:
            await self.door.refresh()
        if self._started:
            self._tell_what_nobody_sends()

    async def start(self) -> None:
        """Start from the end of the flow to its beginning; where the rules come from a topic, wait
        for the first ones. UsageError: the port is in use.
        """
        try:
            if self.settings.follows_topic and self._reload is not None:
                await self._reload.first()
            await self._backbone.open()
            if self.sinks is not None:
                await self.sinks.start()
            if self._backbone.engine is not None:
                await asyncio.to_thread(self._backbone.engine.start)
            for server in (self.door, self.status):
                if server is not None:
                    await server.start()
        except BaseException:
            await self.stop()
            raise
        self._started = True
        self._gauges = asyncio.create_task(self._gauge())
        if self._reload is not None:
            self._following = asyncio.create_task(self._reload.run())
        self._tell_what_nobody_sends()
        for tenant, book in self.books.items():
            _log.info(
                "running",
                tenant=tenant,
                rooms=sorted(self.rooms),
                rules=book.version,
                integrations=len(book.integrations),
                chains=len(book.chains),
                sinks=len(book.sinks),
            )

    async def wait(self) -> None:
        """Return never; raises what ended a part of the pipeline."""
        parts: list[asyncio.Future[Any]] = []
        if self._following is not None:
            parts.append(self._following)
        if self._backbone.engine is not None:
            parts.append(asyncio.wrap_future(self._backbone.engine.failed))
        if self.door is not None and self.door.failed is not None:
            parts.append(self.door.failed)
        sinks = None
        if self.sinks is not None:
            sinks = asyncio.ensure_future(self.sinks.failure())
            parts.append(sinks)
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            if part is sinks:
                raise sinks.result()
            part.result()

    async def stop(self) -> None:
        """Stop from the beginning of the flow to its end; what is not done is kept in the log."""
        for task in (self._gauges, self._following):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._source is not None:
            await asyncio.to_thread(self._source.close)
        for server in (self.door, self.status):
            if server is not None:
                await server.stop()
        await self._asker.close()
        if isinstance(self._backbone, Embedded):
            await asyncio.to_thread(self._backbone.engine.stop, self.settings.stop_timeout_s)
        if self.sinks is not None:
            await self.sinks.stop(self.settings.stop_timeout_s)
        await self._backbone.close(self.settings.stop_timeout_s)
        self.scripts.close()

    def _tell_what_nobody_sends(self) -> None:
        """Say where deliveries wait for a destination that the rules no longer have: they are kept
        until it is there again, and nothing else would tell of them.
        """
        if self.sinks is None or not isinstance(self._backbone, Embedded):
            return
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

    async def _gauge(self) -> None:
        """Keep the gauges of `/metrics` fresh."""
        while True:
            for (topic, group), records in (await asyncio.to_thread(self._backbone.lag)).items():
                self.metrics.set("funicular_lag_records", records, topic=topic, group=group)
            await asyncio.sleep(GAUGES_EVERY_S)


def __getattr__(name: str) -> Any:
    """Give `faust_app`, for `faust -A pipeline.wiring:faust_app worker`; made when asked for, so
    that nobody else loads Faust. `FUNICULAR_LOG` (faust://…) and `FUNICULAR_RULES` say with what.
    """
    if name == "faust_app":
        return _faust_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _faust_app() -> Any:
    from pipeline.stream.faust_app import make_app  # noqa: PLC0415 - an extra
    from pipeline.stream.faust_settings import FaustSettings  # noqa: PLC0415 - an extra

    metrics = Registry()
    scripts = script_port(ScriptLimits(), metrics)
    folders = os.environ.get("FUNICULAR_RULES", "rules").split()
    books = load_rules([Path(folder) for folder in folders], scripts)
    settings = FaustSettings.from_url(
        os.environ.get("FUNICULAR_LOG", "faust://localhost:9092"), os.environ
    )
    return make_app(stages(lambda: books, scripts, metrics), settings, None, metrics, wall_clock_ms)
