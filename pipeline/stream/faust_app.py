"""Makes the Faust app: an agent and a table a stage, and Faust's settings.

In: stages and settings. Out: a `faust.App`, which `faust -A … worker` runs, or `FaustEngine`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from faust.app.base import BootStrategy
from faust.types import StreamT

from pipeline.errors import UsageError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Stage
from pipeline.stream.faust_runner import FaustRunner
from pipeline.stream.faust_settings import FaustSettings
from pipeline.stream.faust_table import add_table
from pipeline.stream.faust_windows import without_answers
from pipeline.stream.kafka_settings import Security
from pipeline.stream.partitioner import partition_of
from pipeline.stream.settings import EngineSettings
from pipeline.stream.sqlite import wall_clock_ms

# How often a restore is looked at.
WATCH_S = 1.0

_log = get_logger(__name__)


class WithoutWeb(BootStrategy):
    """Starts no web server: `faust worker` would, on every address, and show tables there."""

    enable_web = False


class StageApp(faust.App):
    """A Faust app whose agents are stages. Made by `make_app`."""

    BootStrategy = WithoutWeb

    runners: Sequence[FaustRunner] = ()
    needs: Callable[[], Awaitable[None]]
    restore_stall_s = 5.0
    on_failure: Callable[[BaseException], None] | None = None

    async def fail(self, error: BaseException) -> None:
        """End the app, as a stage failed: what its batch did not finish is not committed."""
        if self.on_failure is not None:
            self.on_failure(error)
        else:
            await self.crash(error)

    async def on_first_start(self) -> None:
        """Look at the topics before anything is read. UsageError: one is missing or differs.

        Faust makes its folders here; there is nothing to put in them.
        """
        await self.needs()

    async def on_start(self) -> None:
        """Look after restores, from the first one on."""
        await super().on_start()
        self.add_future(self.watch_restores())

    async def watch_restores(self) -> None:
        """Begin a restore of Faust's again that stands still: now and then it reads nothing after
        a rebalance, and would wait for ever. It goes on from where it stood.
        """
        left, since = 0, time.monotonic()
        while not self.should_stop:
            await self.sleep(WATCH_S)
            tables: Any = self.tables
            recovery = tables.recovery
            now, before = time.monotonic(), left
            left = recovery.active_remaining_total() if recovery.in_recovery else 0
            if left <= 0 or left != before:
                since = now
            elif now - since >= self.restore_stall_s:
                _log.warning("a restore stands still and is begun again", records_left=left)
                recovery.signal_recovery_start.set()
                since = now

    async def commit_done(self) -> None:
        """Commit what the stages have done since the last time."""
        done = {
            place: offset for runner in self.runners for place, offset in runner.take_done().items()
        }
        consumer: Any = self.consumer
        if done:
            await consumer._commit(done)  # noqa: SLF001 - its public ones take no offsets.

    async def on_stop(self) -> None:
        """Let batches under way end, and commit them."""
        for runner in self.runners:
            await runner.stop()
        await self.commit_done()
        await super().on_stop()


def make_app(
    stages: Sequence[Stage],
    settings: FaustSettings,
    limits: EngineSettings | None = None,
    metrics: Registry | None = None,
    clock: Callable[[], int] = wall_clock_ms,
) -> StageApp:
    """Return an app that runs these stages; its topics must be there. Nothing is started.

    UsageError: two stages have one name.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise UsageError(f"Stages of one engine need different names: {', '.join(names)}")
    app = StageApp(
        settings.kafka.group(settings.app_id or f"faust-{'-'.join(names)}"), **_options(settings)
    )
    app.restore_stall_s = settings.restore_stall_s
    app.needs = lambda: check_topics(stages, settings)
    runners = [
        _add_stage(
            app,
            stage if settings.synchronous_downlinks else without_answers(stage),
            settings=settings,
            limits=limits or EngineSettings(),
            metrics=metrics or Registry(),
            clock=clock,
        )
        for stage in stages
    ]
    app.runners = runners

    async def commits() -> None:
        while not app.should_stop:
            await app.sleep(settings.commit_s)
            await app.commit_done()

    app.task(traced=False)(commits)
    if settings.synchronous_downlinks:
        _log.warning(
            "synchronous downlinks are allowed on an engine that may repeat what it does: after a"
            " crash two requests of a device may be answered with one downlink"
        )

    @app.on_partitions_revoked.connect
    async def revoked(*_: Any, **__: Any) -> None:
        await asyncio.gather(*(runner.pause() for runner in runners))
        await app.commit_done()

    @app.on_rebalance_complete.connect
    async def assigned(*_: Any, **__: Any) -> None:
        # Faust lets records in before it has sought the committed offsets, and then reads them
        # twice; it starts the flow again itself when it has.
        app.consumer.stop_flow()
        for runner in runners:
            runner.resume()

    return app


def _options(settings: FaustSettings) -> dict[str, Any]:
    """Return Faust's own settings; where its default is good, it is left."""
    kafka = settings.kafka
    return {
        "broker": [f"kafka://{address}" for address in kafka.bootstrap.split(",")],
        "broker_credentials": _credentials(kafka.security),
        "broker_client_id": kafka.client_id,
        "broker_session_timeout": kafka.session_timeout_s,
        "broker_heartbeat_interval": kafka.heartbeat_s,
        "broker_rebalance_timeout": kafka.rebalance_timeout_s,
        "broker_max_poll_interval": settings.stall_s,
        "consumer_max_fetch_size": kafka.partition_fetch_bytes_max,
        "producer_acks": -1,
        "producer_max_batch_size": kafka.batch_bytes_max,
        "producer_max_request_size": kafka.record_bytes_max,
        "producer_request_timeout": settings.write_timeout_s,
        "producer_partitioner": _partition,
        "processing_guarantee": "at_least_once",
        "stream_buffer_maxsize": settings.buffer_records,
        # The runner lets the batch under way end, and no more: a stage that waits to try again
        # would hold up the whole group.
        "stream_wait_empty": False,
        # Standbys would hold a second copy of other workers' state in memory.
        "table_standby_replicas": 0,
        # The table of topics says what there is; Faust makes none.
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "autodiscover": False,
    }


def _add_stage(
    app: StageApp,
    stage: Stage,
    *,
    settings: FaustSettings,
    limits: EngineSettings,
    metrics: Registry,
    clock: Callable[[], int],
) -> FaustRunner:
    """Make the stage's table and agent."""
    name = settings.kafka.topic
    table = (
        add_table(app, stage.name, name(stage.state_topic), settings) if stage.state_topic else None
    )
    runner = FaustRunner(
        app, stage, table, settings=settings, limits=limits, metrics=metrics, clock=clock
    )
    source = app.topic(
        name(stage.topic), key_type=bytes, value_type=bytes, key_serializer="raw",
        value_serializer="raw", acks=False,
    )  # fmt: skip

    @app.agent(source, name=f"funicular.{stage.name}", concurrency=1)
    async def agent(stream: StreamT[Any]) -> None:
        assert isinstance(stream, faust.Stream)
        async for event in stream.events():
            await runner.offer(event)

    async def turns() -> None:
        try:
            await runner.run()
        except Exception as error:  # noqa: BLE001 - it ends the worker, and is told to whoever runs it.
            _log.critical("a stage failed; the worker stops", stage=stage.name, exc_info=error)
            await app.fail(error)

    app.task(traced=False)(turns)
    return runner


def _partition(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
    """Choose a partition as all our clients do; it is aiokafka's own rule, kept per key."""
    if key is None:
        return (available or every)[0]
    return every[partition_of(key.decode("utf-8", "surrogateescape"), len(every))]


def _credentials(security: Security) -> Any:
    context = security.context()
    if security.sasl:
        return faust.SASLCredentials(
            username=security.sasl_username,
            password=security.sasl_password,
            mechanism=security.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


async def check_topics(stages: Sequence[Stage], settings: FaustSettings) -> None:
    """Look whether the stages' topics are there. UsageError: no broker answers, a topic is missing,
    or a changelog has another number of partitions than what its stage reads.
    """
    name = settings.kafka.topic
    admin = AIOKafkaAdminClient(**settings.kafka.aiokafka())
    try:
        await admin.start()
        described = await admin.describe_topics()
    except KafkaConnectionError as error:
        raise UsageError(
            f"No Kafka broker answers at {settings.kafka.bootstrap} ({error}); look at the address,"
            " and at FUNICULAR_KAFKA_SECURITY_PROTOCOL where it is secured"
        ) from error
    finally:
        await admin.close()
    counts = {each["topic"]: len(each["partitions"]) for each in described}
    needed = [each for stage in stages for each in (stage.topic, stage.state_topic) if each]
    missing = sorted({name(each) for each in needed} - counts.keys())
    if missing:
        raise UsageError(
            f"Kafka at {settings.kafka.bootstrap} has no topic {', '.join(missing)};"
            " `funicular topics create` makes them"
        )
    for stage in stages:
        if stage.state_topic and counts[name(stage.topic)] != counts[name(stage.state_topic)]:
            raise UsageError(
                f"{name(stage.state_topic)} has {counts[name(stage.state_topic)]} partitions and"
                f" {name(stage.topic)} {counts[name(stage.topic)]}; they must have as many"
            )
