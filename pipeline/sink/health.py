"""Whether a destination works: when it may be asked again, and how many requests at once."""

from __future__ import annotations

from pipeline.sink.retry import RetryConfig

RAMP_FIRST = 2


class Health:
    """The circuit breaker of one destination. Times are monotonic seconds, handed in.

    While it fails, one request at a time tries it, each after a longer wait. The first that
    succeeds lets two go at once, and each further one lets one more, so that what has piled up
    does not fall upon a destination that has just come back. What was under way when it failed
    says nothing new, whether it fails too or succeeds.
    """

    def __init__(self, retry: RetryConfig) -> None:
        self._retry = retry
        self._failed_s = 0.0
        self._ramp: int | None = None  # how many at once after a recovery; None: all
        self.failures = 0
        self.not_before_s = 0.0
        self.stopped = False

    def slots(self, concurrency: int, in_flight: int, now_s: float) -> int:
        """Return how many requests may start now."""
        if self.stopped or now_s < self.not_before_s:
            return 0
        if self.failures:
            return 1 - in_flight
        if self._ramp is None or self._ramp >= concurrency:
            self._ramp = None
            return concurrency - in_flight
        return self._ramp - in_flight

    def failed(self, *, started_s: float, now_s: float, pause_s: float, random: float) -> None:
        """Note a failure of what started then. `pause_s`: the destination's own wish."""
        if self._is_news(started_s):
            self.failures += 1
            self._failed_s = now_s
            pause_s = max(pause_s, self._retry.delay_s(self.failures, random))
        self.pause(now_s + pause_s)

    def worked(self, *, started_s: float) -> None:
        """Note a success of what started then."""
        if not self._is_news(started_s):
            return
        if self.failures:
            self.failures, self._ramp = 0, RAMP_FIRST
        elif self._ramp is not None:
            self._ramp += 1

    def stop(self) -> None:
        """Ask nothing of it any more."""
        self.stopped = True

    def pause(self, until_s: float) -> None:
        """Ask nothing of it before then."""
        self.not_before_s = max(self.not_before_s, until_s)

    def _is_news(self, started_s: float) -> bool:
        return not self.failures or started_s > self._failed_s
