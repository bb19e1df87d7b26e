"""The way from a simulated network server to Funicular: HTTP requests to one integration, counted.

In: bodies. Out: `POST /in/{tenant}/{integration}`, and what was answered. Besides, the clock of
the simulation, and times as network servers write them.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import aiohttp


class Answer(NamedTuple):
    """What Funicular answered. Status 0: nothing; it was not reached, or took too long."""

    status: int
    body: bytes = b""

    @property
    def accepted(self) -> bool:
        """Whether it took the message."""
        return 200 <= self.status < 300


UNANSWERED = Answer(0)


@dataclass
class Clock:
    """Simulated minutes, `minute_s` real seconds each, from the moment it was made."""

    minute_s: float
    began_s: float = field(default_factory=time.monotonic)

    def minute(self) -> float:
        """Return the minutes since the start."""
        return (time.monotonic() - self.began_s) / self.minute_s

    def restart(self) -> None:
        """Begin at minute 0."""
        self.began_s = time.monotonic()


class Callbacks:
    """Posts to one integration. `counts`: sent, accepted, refused (an error), unanswered."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        headers: dict[str, str],
        timeout_s: float,
        url: str = "",
    ) -> None:
        """Make it. `headers` come with each request; `url`, the integration's, may come later."""
        self.url = url
        self._session = session
        self._headers = headers
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self.counts: Counter[str] = Counter(sent=0, accepted=0, refused=0, unanswered=0)

    async def post(self, body: bytes) -> Answer:
        """Make one request. Never raises for what the network does."""
        self.counts["sent"] += 1
        try:
            async with self._session.post(
                self.url, data=body, headers=self._headers, timeout=self._timeout
            ) as response:
                answer = Answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError):
            self.counts["unanswered"] += 1
            return UNANSWERED
        self.counts["accepted" if answer.accepted else "refused"] += 1
        return answer


def timestamp() -> str:
    """Return the time now as Go's network servers write it: RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
