"""What stands in for every sink and network server in a bench: it counts, and sends nothing.

In: deliveries, as a destination's transport gets them. Out: `Counted`: how many, and how long each
took from the door.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pipeline.model.delivery import Delivery
from pipeline.sink.retry import RetryConfig
from pipeline.sink.transport import DELIVERED, Context, Result

DELIVERIES_MAX = 1_000
_TIME_DIGITS = 12  # of an id of the door: milliseconds, see `ingest/ids.py`
_DOOR_ID_LENGTH = 32


class Counted:
    """What has been delivered so far; from `since_ms` on also how long it took, in milliseconds."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.since_ms = now_ms()
        self.deliveries: Counter[str] = Counter()
        self.downlinks = 0
        self.took_ms: Counter[int] = Counter()

    def take(self, destination: str, batch: Sequence[Delivery]) -> None:
        """Count deliveries of one destination."""
        now_ms = self._now_ms()
        self.deliveries[destination] += len(batch)
        for delivery in batch:
            self.downlinks += delivery.downlink is not None
            came_ms = door_time_ms(delivery.id)
            # What hashing made of a long id only looks like a time.
            if came_ms is not None and self.since_ms <= came_ms <= now_ms:
                self.took_ms[now_ms - came_ms] += 1


def door_time_ms(identity: str) -> int | None:
    """Return when the door took the uplink that this id derives from; None: it does not say."""
    head, dot, _ = identity.partition(".")
    if not dot or len(head) != _DOOR_ID_LENGTH:
        return None
    try:
        return int(head[:_TIME_DIGITS], 16)
    except ValueError:
        return None


class CountingTransport:
    """See `sink.transport.Transport`. Calls that a chain waits for are answered empty."""

    deliveries_max = DELIVERIES_MAX
    concurrency = 1

    def __init__(self, context: Context, counted: Counted) -> None:
        self._destination = context.destination
        self._counted = counted
        self.retry = RetryConfig()

    async def open(self) -> None:
        """Nothing is needed."""

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Count."""
        self._counted.take(self._destination, batch)
        return [DELIVERED] * len(batch)

    async def close(self) -> None:
        """Nothing is held."""
