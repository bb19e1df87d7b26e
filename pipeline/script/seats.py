"""The children that run: one a tenant and language, at most so many, the least recently used
ended. What comes in are threads that need one; what goes out is a child that is theirs alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Condition

from pipeline.errors import ClosedError, RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.script.limits import ScriptLimits
from pipeline.script.process import ChildLostError, ScriptProcess

_log = get_logger(__name__)
Key = tuple[str, str]  # tenant, language


class Seat:
    """The place of one tenant's child; the child is started when it is needed."""

    def __init__(self, key: Key, seats: Seats) -> None:
        self._key = key
        self._seats = seats
        self._process: ScriptProcess | None = None
        self.is_taken = False

    def process(self) -> ScriptProcess:
        """Return the running child. RetryableError: it does not start."""
        if self._process is None or self._process.is_ended:
            self._process = self._seats.start(self._key[1])
        return self._process

    def lose(self, lost: ChildLostError) -> None:
        """Count a child that is gone; the next call of `process` starts another."""
        tenant, language = self._key
        self._seats.metrics.add("funicular_script_restarts_total", reason=lost.reason)
        _log.warning(
            "A script process was lost",
            tenant=tenant,
            language=language,
            reason=lost.reason,
            said=lost.said,
        )
        self.end()

    def end(self) -> None:
        """End the child, if there is one."""
        if self._process is not None:
            self._process.end()
            self._process = None


class Seats:
    """Hands out seats. Thread-safe."""

    def __init__(self, limits: ScriptLimits, metrics: Registry) -> None:
        self.metrics = metrics
        self._limits = limits
        self._seats: OrderedDict[Key, Seat] = OrderedDict()
        self._change = Condition()
        self._is_closed = False
        self._has_told = False
        # Children die with the thread that started them (PDEATHSIG), so one thread starts all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="script-starter")
        self._expected: dict[str, Future[ScriptProcess]] = {}  # by language

    def expect(self, key: Key) -> None:
        """Begin to start a child that the key will need soon, unless it had one before: whoever
        needs it waits for less.
        """
        language = key[1]
        if key in self._seats or language in self._expected:
            return
        with suppress(RuntimeError):  # closed: nobody will
            self._expected[language] = self._starter.submit(ScriptProcess, language, self._limits)

    @contextmanager
    def take(self, key: Key) -> Iterator[Seat]:
        """Wait for the key's seat, and have it alone within the block. ClosedError: too late."""
        seat, ended = self._reserve(key)
        try:
            if ended is not None:
                ended.end()
            yield seat
        finally:
            with self._change:
                seat.is_taken = False
                self._change.notify_all()
                is_closed = self._is_closed
            if is_closed:
                seat.end()

    def leave(self, tenant: str) -> None:
        """End a tenant's children, but for those that are at work."""
        with self._change:
            idle = [
                key for key, seat in self._seats.items() if key[0] == tenant and not seat.is_taken
            ]
            left = [self._seats.pop(key) for key in idle]
        for seat in left:
            seat.end()

    def _reserve(self, key: Key) -> tuple[Seat, Seat | None]:
        with self._change:
            while True:
                if self._is_closed:
                    raise ClosedError("the script engines are closed")
                ended: Seat | None = None
                seat = self._seats.get(key)
                if seat is None and len(self._seats) >= self._limits.children_max:
                    idle = (other for other in self._seats.items() if not other[1].is_taken)
                    oldest, ended = next(idle, (None, None))
                    if oldest is not None:
                        del self._seats[oldest]
                if seat is None and len(self._seats) < self._limits.children_max:
                    seat = self._seats[key] = Seat(key, self)
                if seat is not None and not seat.is_taken:
                    seat.is_taken = True
                    self._seats.move_to_end(key)
                    return seat, ended
                self._change.wait()

    def start(self, language: str) -> ScriptProcess:
        """Start a child; says once what the kernel refused of its confinement.

        RetryableError: it does not start. ClosedError: too late.
        """
        try:
            starting = self._expected.pop(language, None) or self._starter.submit(
                ScriptProcess, language, self._limits
            )
        except RuntimeError:
            raise ClosedError("the script engines are closed") from None
        process = starting.result()
        if process.refused and not self._has_told:
            self._has_told = True
            _log.warning(
                "Script processes run with fewer walls than they could have",
                refused=process.refused,
            )
        return process

    def close(self) -> None:
        """End all children. A call that is at work raises ClosedError, since its child dies with
        the thread that started it, or returns if it is done before.
        """
        with self._change:
            self._is_closed = True
            idle = [seat for seat in self._seats.values() if not seat.is_taken]
            self._change.notify_all()
        for seat in idle:
            seat.end()
        expected, self._expected = self._expected, {}
        for starting in expected.values():
            with suppress(RetryableError):
                starting.result().end()
        self._starter.shutdown(wait=True)
