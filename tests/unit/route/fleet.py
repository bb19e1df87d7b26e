"""Several devices under test: what one tells another comes back to the stage, as on the log."""

from __future__ import annotations

from typing import Any

from pipeline import topics
from pipeline.model.record import Outgoing, Record
from pipeline.route.limits import Limits
from tests.unit.route.bench import Bench, Made, record, rulebook, uplink


class Fleet:
    """Devices of one tenant on one bench; `device.events` that route writes are taken in order."""

    def __init__(self, *chains: str, limits: Limits | None = None) -> None:
        self.bench = Bench(rulebook(*chains), limits=limits or Limits())
        self.said = 0
        self.told: list[Outgoing] = []
        """What route wrote to `device.events`."""

    def say(self, device: str, **fields: Any) -> Made:
        """Let a device say something, and all that comes of it happen; return all outputs."""
        self.said += 1
        return self.take(record(uplink(self.said, id=f"{device}-{self.said}.0", device=device,
                                       **fields)))  # fmt: skip

    def take(self, *records: Record) -> Made:
        """Take records, and what they make other devices be told."""
        return self.settle(self.bench.take(*records))

    def wait(self, milliseconds: int) -> Made:
        """Let time pass."""
        return self.settle(self.bench.wait(milliseconds))

    def settle(self, made: Made) -> Made:
        """Take what was written to `device.events` until nothing more is."""
        told = made.of(topics.DEVICE_EVENTS)
        while told:
            self.told += told
            more = self.bench.take(*map(self._read, told))
            made += more
            told = more.of(topics.DEVICE_EVENTS)
        return made

    def attributes(self, device: str, scope: str = "server") -> dict[str, Any]:
        """Return a device's attributes."""
        return self.bench.values(scope, f"t/{device}")

    def parts(self, device: str) -> dict[str, Any]:
        """Return all that is kept of a device."""
        return self.bench.parts.get(f"t/{device}", {})

    def _read(self, told: Outgoing) -> Record:
        return Record(
            topic=told.topic,
            partition=3,
            offset=len(self.told),
            time_ms=self.bench.now_ms,
            key=told.key,
            value=told.value,
            headers=told.headers,
        )
