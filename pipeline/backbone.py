"""What is under a process: the log that its edges use, and the engine that runs its stages.

In: the operator's settings, and the stages that this process runs. Out: a `Backbone`: the embedded
one, or that on Kafka.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import UsageError
from pipeline.metrics import Registry
from pipeline.model.letters import LetterBox, OpenBox
from pipeline.ports import Leases, Log, Stage
from pipeline.rulebook.book import Rulebook
from pipeline.settings import Settings
from pipeline.stream.engine import SqliteEngine
from pipeline.stream.leases import NoLeases
from pipeline.stream.letters import LogLetters
from pipeline.stream.shelf import EmbeddedShelf
from pipeline.stream.sqlite import SqliteLog, wall_clock_ms
from pipeline.stream.sqlite_leases import EmbeddedLeases

if TYPE_CHECKING:
    from pipeline.stream.kafka_settings import KafkaSettings


class Backbone(Protocol):
    """The log and the engine under a process: the embedded ones, or those on Kafka."""

    @property
    def log(self) -> Log | None:
        """What the edges read and write; None: there are no edges here."""
        ...

    @property
    def leases(self) -> Leases | None:
        """Who may have a connection that one worker alone may have; None: there are no edges."""
        ...

    @property
    def letters(self) -> LetterBox | None:
        """Where the dead letters are; None: this process has no way to them."""
        ...

    @property
    def engine(self) -> Engine | None:
        """What runs the stages; None: there are none here."""
        ...

    async def open(self) -> None:
        """Connect, before anything is read or written."""
        ...

    async def close(self, timeout_s: float) -> None:
        """Stop the stages, after the door and before the log."""
        ...

    async def prepare(self, books: Mapping[str, Rulebook]) -> None:
        """Make what rules need before they may come into force: topics of new destinations.
        FunicularError: that cannot be done now.
        """
        ...

    def unready(self) -> str | None:
        """Return what is missing before messages can be taken; None: nothing."""
        ...

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, by topic and group. May block for a moment."""
        ...


class Engine(Protocol):
    """What all engines have."""

    @property
    def failed(self) -> concurrent.futures.Future[None]:
        """Done when it ended: with the error, or with None after `stop`."""
        ...

    @property
    def running(self) -> bool:
        """Whether all stages run."""
        ...

    def start(self) -> None:
        """Begin to run the stages."""
        ...

    def stop(self, timeout_s: float) -> bool:
        """Let each stage finish its batch; return whether all have, within the time."""
        ...


class Embedded:
    """One SQLite file, nothing to install."""

    def __init__(self, settings: Settings, metrics: Registry, run: Sequence[Stage]) -> None:
        """UsageError: another process has the log, or this one is not to run everything."""
        self._metrics = metrics
        self.log = SqliteLog.open(settings.log_file, settings.log, metrics)
        self.engine = SqliteEngine(self.log, run, settings.engine, metrics)
        shelf = EmbeddedShelf(settings.log_file, self.log.append_blocking)
        self.letters = OpenBox(LogLetters(shelf, wall_clock_ms))
        self.leases = EmbeddedLeases(self.log)

    async def open(self) -> None:
        """Nothing more is needed."""

    async def prepare(self, books: Mapping[str, Rulebook]) -> None:
        """Nothing is needed: a topic comes with its first record."""

    async def close(self, timeout_s: float) -> None:
        """Stop the stages and close the file."""
        await asyncio.to_thread(self.engine.stop, timeout_s)
        await asyncio.to_thread(self.log.close)

    def unready(self) -> str | None:
        """Return what is missing before messages can be taken; None: nothing."""
        if self.log.failed.done():
            return "the log has failed"
        return None if self.engine.running else "the stages do not run"

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, by topic and group."""
        self._metrics.set("funicular_log_bytes", self.log.size_bytes)
        return self.log.lag()


class OnKafka:
    """Kafka: aiokafka at the edges, the exactly-once engine (or Faust) for the stages."""

    def __init__(
        self,
        settings: Settings,
        metrics: Registry,
        run: Sequence[Stage],
        *,
        edges: bool,
        rules: Callable[[], int],
    ) -> None:
        """UsageError: what the operator set of Kafka cannot be."""
        kafka = self._kafka = kafka_settings(settings)
        self.log: Log | None = None
        self.letters: LetterBox | None = _letters(kafka) if edges else None
        self.leases: Leases | None = None
        self.engine: Engine | None = None
        if edges:
            from pipeline.stream.kafka_log import KafkaLog  # noqa: PLC0415 - an extra

            self.log = self._edges = KafkaLog(kafka)
            self.leases = _leases(kafka, settings.ingest.worker)
        if run and settings.log_url.startswith("faust:"):
            from pipeline.stream.faust import FaustEngine  # noqa: PLC0415 - an extra
            from pipeline.stream.faust_settings import FaustSettings  # noqa: PLC0415

            faust = FaustSettings.from_url(settings.log_url, os.environ)
            self.engine = FaustEngine(run, faust, settings.engine, metrics, wall_clock_ms)
        elif run:
            from pipeline.stream.kafka import KafkaEngine  # noqa: PLC0415 - an extra
            from pipeline.stream.kafka_limits import KafkaEngineSettings  # noqa: PLC0415

            self.engine = KafkaEngine(
                kafka,
                run,
                KafkaEngineSettings(worker=_worker(settings.data), slot=settings.slot),
                metrics,
                state_folder=settings.data / "state",
                rules=rules,
            )

    async def open(self) -> None:
        """Connect. UsageError: topics are missing. RetryableError: no broker answers."""
        if self.log is not None:
            await self._edges.start()

    async def prepare(self, books: Mapping[str, Rulebook]) -> None:
        """Make the topics of new destinations. UsageError: the cluster refuses."""
        try:
            from pipeline.stream.kafka_rules import create_deliveries  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UsageError(
                f"edited rules need {error.name}: pip install 'funicular[kafka]', or restart"
            ) from None

        await asyncio.to_thread(create_deliveries, self._kafka, books.values())

    async def close(self, timeout_s: float) -> None:
        """Stop the stages, leave the groups, disconnect."""
        if self.engine is not None:
            await asyncio.to_thread(self.engine.stop, timeout_s)
        if self.leases is not None:
            await self.leases.close()
        if self.log is not None:
            await self._edges.close(timeout_s)

    def unready(self) -> str | None:
        """Return what is missing before messages can be taken; None: nothing."""
        if self.engine is not None and not self.engine.running:
            return "the stages do not run"
        return self._edges.unready() if self.log is not None else None

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait for our sinks; the engine sets its own gauges."""
        return self._edges.lag() if self.log is not None else {}


def kafka_settings(settings: Settings) -> KafkaSettings:
    """Return what the operator set of Kafka. UsageError: it cannot be."""
    from pipeline.stream.kafka_settings import KafkaSettings  # noqa: PLC0415 - an extra

    rest = settings.log_url.partition("://")[2]
    return KafkaSettings.from_url(f"kafka://{rest}", os.environ)


def _leases(kafka: KafkaSettings, worker: str) -> Leases:
    """Return the leases on a cluster. Who runs Faust may not have what they need."""
    try:
        from pipeline.stream.kafka_leases import KafkaLeases  # noqa: PLC0415 - an extra
    except ImportError as error:
        return NoLeases(
            f"what one worker alone may do needs {error.name}: pip install 'funicular[kafka]'"
        )
    return KafkaLeases(kafka, worker)


def _letters(kafka: KafkaSettings) -> LetterBox | None:
    """Return the cluster's dead letters. Who runs Faust may not have what they need."""
    try:
        from pipeline.stream.kafka_shelf import KafkaLetterBox  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return KafkaLetterBox(kafka, wall_clock_ms)


def _worker(data: Path) -> str:
    """Return the name that a worker keeps over restarts: its machine's, and its data folder's.

    Two processes of one folder have different slots; two of one name would fence each other.
    """
    place = blake2b(str(data.resolve()).encode(), digest_size=4).hexdigest()
    return f"{socket.gethostname()}-{place}"
