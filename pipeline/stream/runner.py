"""Runs one stage on the embedded log, in a thread of its own.

In come the records of the stage's topic and its due timers; what the stage made of a batch is
committed in one step with its state, its timers and the position.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson

from pipeline.errors import ClosedError, RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState, DueTimer, Stage
from pipeline.stream import database
from pipeline.stream.cursor import Cursor
from pipeline.stream.settings import EngineSettings
from pipeline.stream.sqlite import SqliteLog
from pipeline.stream.state_cache import StateCache
from pipeline.stream.writeset import WriteSet

_log = get_logger(__name__)

_DUE = """
SELECT key, name, due_ms, data FROM timer
WHERE stage = ? AND due_ms <= ? ORDER BY due_ms, key, name LIMIT ?
"""
_NEXT_DUE = "SELECT min(due_ms) FROM timer WHERE stage = ?"
_NEVER = 1 << 62


class StoppedError(Exception):
    """The runner is to stop while it waits; nothing is committed."""


class StageRunner:
    """One stage and its thread. `ended` is called in that thread: with the error, or None."""

    def __init__(
        self,
        log: SqliteLog,
        stage: Stage,
        settings: EngineSettings,
        metrics: Registry,
        ended: Callable[[Stage, BaseException | None], None],
    ) -> None:
        self.stage = stage
        self._log = log
        self._settings = settings
        self._metrics = metrics
        self._ended = ended
        place = log.register(stage.topic, stage.name)
        self._cursor = Cursor(log.catalogue, stage.topic, place.next)
        self._place = place
        self._stopping = threading.Event()
        self._wakeup = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stage-{stage.name}", daemon=True)
        self._next_due = 0
        self._resting = False
        self._connection: sqlite3.Connection
        self._cache: StateCache

    def start(self) -> None:
        """Begin."""
        self._log.catalogue.listen(self.stage.topic, self.wake)
        self._thread.start()

    def wake(self) -> None:
        """Look again for records and timers."""
        self._wakeup.set()

    def ask_to_stop(self) -> None:
        """Have it end after the batch that it is in."""
        self._stopping.set()
        self._wakeup.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def idle(self) -> bool:
        """Tell whether all is handled and committed and no timer is due."""
        stands = self._log.catalogue.position(self.stage.topic, self.stage.name)
        end = self._log.catalogue.end(self.stage.topic)
        return (
            self._resting
            and stands is not None
            and stands.next >= end
            and self._next_due > self._now()
        )

    def _run(self) -> None:
        error: BaseException | None = None
        self._connection = database.connect(self._log.path)
        self._cache = StateCache(
            self._connection,
            self.stage.name,
            self._settings.state_keys_max,
            self._settings.state_bytes_max,
        )
        try:
            self._next_due = self._find_next_due()
            while not self._stopping.is_set():
                self._wakeup.clear()
                if not self._step():
                    self._rest()
        except (StoppedError, ClosedError):
            _log.debug("a stage stopped before its batch was committed", stage=self.stage.name)
        except BaseException as caught:  # noqa: BLE001 - the engine is told, and stops.
            error = caught
        finally:
            self._log.catalogue.unlisten(self.stage.topic, self.wake)
            self._connection.close()
            self._ended(self.stage, error)

    def _step(self) -> bool:
        """Handle and commit one batch; return whether there was one."""
        now_ms = self._now()
        timers = self._due(now_ms) if self._next_due <= now_ms else []
        records = self._cursor.read(
            self._connection, self._settings.records_max, self._settings.bytes_max
        )
        if not timers and not records:
            return False
        batch = Batch(0, records, timers)
        outputs, state, now_ms = self._handle(batch)
        self._commit(batch, outputs, state, now_ms)
        return True

    def _handle(self, batch: Batch) -> tuple[list[Outgoing], DeviceState, int]:
        """Call the stage until it does not ask to be called again."""
        if self.stage.state_topic is not None:
            keys = dict.fromkeys(timer.key for timer in batch.timers)
            keys.update(dict.fromkeys(record.key for record in batch.records))
            self._cache.prepare(keys)
        wait_s = self._settings.retry_first_s
        while True:
            now_ms = self._now()
            state = DeviceState(self._cache.load, self._cache.load_aside)
            began = time.perf_counter()
            try:
                outputs = self.stage.handle(batch, state, now_ms)
            except RetryableError as error:
                wait_s = self._back_off(error, wait_s)
            else:
                self._metrics.add(
                    "funicular_stage_seconds_total",
                    time.perf_counter() - began,
                    stage=self.stage.name,
                )
                return outputs, state, now_ms

    def _commit(
        self, batch: Batch, outputs: list[Outgoing], state: DeviceState, now_ms: int
    ) -> None:
        """Commit until there is room; the set is the same each time."""
        timers: dict[tuple[str, str], tuple[int, Any] | None] = {
            (timer.key, timer.name): None for timer in batch.timers
        }
        timers.update(state.timer_changes)
        move = self._place._replace(next=self._cursor.next, now_ms=now_ms)
        writes = WriteSet("stage", self._log.encode(outputs) if outputs else (), move)
        if state.changes:
            writes.change_state(self.stage.name, state.changes)
        if timers:
            writes.change_timers(self.stage.name, timers)
        wait_s = self._settings.retry_first_s
        while True:
            try:
                self._log.commit_blocking(writes)
                break
            except ClosedError:
                raise
            except RetryableError as error:
                wait_s = self._back_off(error, wait_s)
        self._place = move
        self._cache.committed(writes.state_put, writes.state_deleted)
        if timers:
            self._next_due = self._find_next_due()
        name = self.stage.name
        self._metrics.add("funicular_stage_records_total", len(batch.records), stage=name)
        self._metrics.add("funicular_stage_batches_total", stage=name)

    def _back_off(self, error: RetryableError, wait_s: float) -> float:
        """Wait, or raise StoppedError; return how long to wait the next time."""
        _log.warning(
            "a stage waits to try its batch again",
            stage=self.stage.name,
            code=error.code,
            why=error.message,
        )
        pause_s = wait_s if error.retry_after_s is None else error.retry_after_s
        if self._stopping.wait(min(pause_s, self._settings.retry_max_s)):
            raise StoppedError
        return min(wait_s * 2, self._settings.retry_max_s)

    def _rest(self) -> None:
        self._resting = True
        self._log.catalogue.tell()
        self._sleep()
        self._resting = False

    def _sleep(self) -> None:
        """Wait until a record comes, a timer is due, or somebody calls."""
        if self._next_due >= _NEVER:
            self._wakeup.wait()
            return
        due_in_s = (self._next_due - self._now()) / 1000
        self._wakeup.wait(min(max(due_in_s, 0), self._settings.timer_poll_s))

    def _now(self) -> int:
        return max(self._log.clock(), self._place.now_ms)

    def _due(self, now_ms: int) -> list[DueTimer]:
        found = self._connection.execute(
            _DUE, (self.stage.name, now_ms, self._settings.timers_max)
        ).fetchall()
        return [
            DueTimer(key, name, due_ms, orjson.loads(data)) for key, name, due_ms, data in found
        ]

    def _find_next_due(self) -> int:
        (due_ms,) = self._connection.execute(_NEXT_DUE, (self.stage.name,)).fetchone()
        return _NEVER if due_ms is None else int(due_ms)
