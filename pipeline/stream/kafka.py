"""The engine on Kafka: runs stages, each in its thread, until it is told to stop.

In: the cluster's settings and stages. Any number of workers run the same stages; Kafka's consumer
groups share the partitions out among them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from confluent_kafka.admin import AdminClient

from pipeline.errors import UsageError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Stage
from pipeline.stream.kafka_client import Complaints, shared_options
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_places import ends, lag, places
from pipeline.stream.kafka_runner import KafkaStageRunner
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.sqlite import wall_clock_ms

_log = get_logger(__name__)
_LOOK_S = 0.05


class KafkaEngine:
    """Gives each batch of a stage exactly one effect: outputs, state, timers and position are one
    transaction; `now_ms` of a partition never goes back, whoever has it.

    A worker that was paused or cut off cannot commit once others have its partitions. State lies
    in `state_folder`, a copy of what the changelogs say: it may be deleted at any time when the
    process does not run. A stage that raises anything but RetryableError ends the whole engine:
    `failed`; its partitions go to other workers.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        stages: Sequence[Stage],
        settings: KafkaEngineSettings | None = None,
        metrics: Registry | None = None,
        *,
        state_folder: Path,
        clock: Callable[[], int] = wall_clock_ms,
        rules: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take the stages. `rules`: how far the topic of rules is in force here; partitions that
        were written further on wait for that. UsageError: two stages have the same name.
        """
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise UsageError(f"Stages of one engine need different names: {', '.join(names)}")
        self._kafka = kafka
        self._settings = settings or KafkaEngineSettings()
        self._complaints = Complaints("admin")
        self._runners = [
            KafkaStageRunner(
                stage,
                kafka,
                self._settings,
                metrics or Registry(),
                folder=state_folder / kafka.group(stage.name),
                clock=clock,
                rules=rules,
                ended=self._ended,
            )
            for stage in stages
        ]
        self._admin: AdminClient | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._running = 0
        self.failed: Future[None] = Future()

    @property
    def running(self) -> bool:
        """Whether all stages run."""
        return 0 < self._running == len(self._runners) and not self._stopping

    def start(self) -> None:
        """Check the topics, and begin to run the stages. Blocks for as long as the cluster takes
        to answer. `failed` is done when it ended: with the error, or with None after `stop`.

        UsageError: the cluster does not answer, a topic is missing or has other partitions than
        it must, a slot is taken; what was begun is stopped.
        """
        stages = [runner.stage for runner in self._runners]
        admin = self._client()
        found = places(admin, self._kafka, stages, self._settings.call_timeout_s, self._complaints)
        try:
            for runner in self._runners:
                runner.start(found[runner.stage.name], admin)
                with self._lock:
                    self._running += 1
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Let each stage finish its batch and leave its group; return whether all have, within
        the time. What a stage that did not is still doing may be committed yet, or not at all.
        """
        self._ask_to_stop()
        deadline = time.monotonic() + timeout_s
        ended = [runner.join(max(0.0, deadline - time.monotonic())) for runner in self._runners]
        if not all(ended):
            _log.warning("a stage did not end in time", timeout_s=timeout_s)
        with self._lock:
            if not self.failed.done():
                self.failed.set_result(None)
        return all(ended)

    def wake(self) -> None:
        """Do nothing: stages look at the clock every `poll_s` by themselves."""

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Block until nothing waits in this worker's partitions: no record, no due timer. Return
        whether that came in time.

        Raises what made the engine fail. Not for a loop's thread: use `asyncio.to_thread`.
        """
        deadline = time.monotonic() + timeout_s
        before: list[int] | None = None
        while time.monotonic() < deadline:
            if self.failed.done():
                error = self.failed.exception()
                if error is not None:
                    raise error
                return False
            # Twice without a commit in between: what one stage put out another may have to read.
            commits = [runner.view.commits for runner in self._runners]
            if self._idle():
                if commits == before:
                    return True
                before = commits
                continue
            before = None
            time.sleep(_LOOK_S)
        return False

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait in all partitions, by topic and group; asks the cluster.

        Ends of transactions count as records for who does not stand behind them yet.
        """
        found = {}
        for runner in self._runners:
            stage = runner.stage
            found[stage.topic, stage.name] = lag(
                self._client(),
                self._kafka,
                stage,
                runner.view.positions,
                self._settings.call_timeout_s,
            )
        return found

    def _idle(self) -> bool:
        if not all(runner.idle() for runner in self._runners):
            return False
        for runner in self._runners:
            positions = runner.view.positions
            topic = self._kafka.topic(runner.stage.topic)
            last = ends(self._client(), topic, positions, self._settings.call_timeout_s)
            if any(positions[number] < end for number, end in last.items()):
                return False
        return all(runner.idle() for runner in self._runners)

    def _client(self) -> AdminClient:
        if self._admin is None:
            options = shared_options(self._kafka, "admin") | {"error_cb": self._complaints}
            self._admin = AdminClient(options)
        return self._admin

    def _ask_to_stop(self) -> None:
        self._stopping = True
        for runner in self._runners:
            runner.ask_to_stop()

    def _ended(self, stage: Stage, error: BaseException | None) -> None:
        with self._lock:
            self._running -= 1
        if error is not None:
            _log.critical("a stage failed; the engine stops", stage=stage.name, exc_info=error)
            with self._lock:
                if not self.failed.done():
                    self.failed.set_exception(error)
            self._ask_to_stop()
