"""The engine on the embedded log: runs stages, each in its thread, until it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from pipeline.errors import UsageError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Stage
from pipeline.stream.runner import StageRunner
from pipeline.stream.settings import EngineSettings
from pipeline.stream.sqlite import SqliteLog

_log = get_logger(__name__)


class SqliteEngine:
    """Gives each batch of a stage exactly one effect: outputs, state, timers and position are one
    commit; `now_ms` of a stage never goes back, also over restarts and jumps of the clock.

    The stages' groups are known from construction on, so that retention keeps what they have not
    read. A stage that raises anything but RetryableError ends the whole engine: `failed`.
    """

    def __init__(
        self,
        log: SqliteLog,
        stages: Sequence[Stage],
        settings: EngineSettings | None = None,
        metrics: Registry | None = None,
    ) -> None:
        """Take the stages. UsageError: two have the same name."""
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise UsageError(f"Stages of one engine need different names: {', '.join(names)}")
        self._log = log
        self._runners = [
            StageRunner(
                log, stage, settings or EngineSettings(), metrics or Registry(), self._ended
            )
            for stage in stages
        ]
        self._lock = threading.Lock()
        self._stopping = False
        self._running = 0
        self.failed: Future[None] = Future()

    @property
    def running(self) -> bool:
        """Whether all stages run."""
        return 0 < self._running == len(self._runners) and not self._stopping

    def start(self) -> None:
        """Begin to run the stages; returns at once. `failed` is done when it ended: with the
        error, or with None after `stop`.
        """
        self._running = len(self._runners)
        for runner in self._runners:
            runner.start()
        self._log.failed.add_done_callback(self._log_ended)

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Let each stage finish its batch; return whether all have, within the time.

        What a stage that did not is still doing will not be committed once the log is closed.
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
        """Have all stages look at the clock again, after a jump of one that is not the wall's."""
        for runner in self._runners:
            runner.wake()

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Block until nothing waits: no record, no due timer. Return whether that came in time.

        Raises what made the engine fail. Not for a loop's thread: use `asyncio.to_thread`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if self.failed.done():
                error = self.failed.exception()
                if error is not None:
                    raise error
                return False
            # A look at the clock now and then, for timers that were not due before.
            left_s = deadline - time.monotonic()
            if self._log.catalogue.wait(self._idle, min(max(left_s, 0.0), 0.05)):
                return True
            if left_s <= 0:
                return False

    def _idle(self) -> bool:
        return all(runner.idle() for runner in self._runners)

    def _ask_to_stop(self) -> None:
        self._stopping = True
        for runner in self._runners:
            runner.ask_to_stop()

    def _ended(self, stage: Stage, error: BaseException | None) -> None:
        with self._lock:
            self._running -= 1
        if error is not None:
            _log.critical("a stage failed; the engine stops", stage=stage.name, exc_info=error)
            self._fail(error)

    def _log_ended(self, ended: Future[None]) -> None:
        error = ended.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if not self.failed.done():
                self.failed.set_exception(error)
        self._ask_to_stop()
