"""What a bench found: counts, rates and percentiles; as JSON and as lines to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

PERCENTILES = (50, 90, 99, 99.9)


class BenchResult(msgspec.Struct, frozen=True):
    """Of one bench. Rates are a second, times in milliseconds; percentiles by their number.

    `uplinks` were taken by the door; `refused` were not (by status; 0: no answer). `handled_s` is
    from the first of them until nothing waited any more; `drained` False: it was not waited for
    longer. `cpu_us`: CPU time of the worker and its script processes, an uplink.
    """

    log: str
    rate: float
    seconds: float
    devices: int
    uplinks: int
    refused: dict[str, int]
    uplinks_a_second: float
    handled_s: float
    handled_a_second: float
    drained: bool
    deliveries: dict[str, int]
    downlinks: int
    dead_letters: dict[str, int]
    cpu_us: float
    door_ms: dict[str, float]
    door_to_sink_ms: dict[str, float]
    funicular: str
    python: str
    machine: str
    samples: dict[str, str] = {}
    warnings: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether every uplink was taken and handled, and nothing became a dead letter."""
        return self.drained and not self.refused and not self.dead_letters and self.uplinks > 0


def percentiles(counts: Mapping[int, int]) -> dict[str, float]:
    """Return percentiles of values that were counted: the smallest value that is not below as
    many percent of them. Empty where there are none.
    """
    total = sum(counts.values())
    found: dict[str, float] = {}
    if not total:
        return found
    ranks = [(percent, percent / 100 * total) for percent in PERCENTILES]
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        while ranks and seen >= ranks[0][1]:
            found[f"p{ranks.pop(0)[0]:g}"] = float(value)
    found["max"] = float(max(counts))
    return found


def lines(result: BenchResult) -> Iterator[str]:
    """Yield the result as lines to read."""
    wanted = f"{result.rate:g} uplinks/s" if result.rate else "flat out"
    yield f"{result.log}, {wanted} for {result.seconds:g} s, {result.devices} devices a source"
    for source, said in result.samples.items():
        yield f"  {source}: {said}"
    yield ""
    yield f"taken by the door   {result.uplinks:>10,}   {result.uplinks_a_second:>10,.0f} /s"
    yield (
        f"handled             {result.uplinks:>10,}   {result.handled_a_second:>10,.0f} /s"
        f"   all done after {result.handled_s:.1f} s"
        if result.drained
        else "handled             not all: there was still work when the time for it was over"
    )
    for destination, count in sorted(result.deliveries.items()):
        yield f"  to {destination:<17}{count:>10,}"
    yield f"CPU of the worker   {result.cpu_us:>10.1f}   µs an uplink"
    yield f"the door's answer   {_times(result.door_ms)}"
    yield f"from door to sink   {_times(result.door_to_sink_ms)}"
    for status, count in sorted(result.refused.items()):
        said = "without an answer" if status == "0" else f"answered {status}"
        yield f"REFUSED             {count:>10,}   {said}"
    for reason, count in sorted(result.dead_letters.items()):
        yield f"DEAD LETTERS        {count:>10,}   {reason}"


def _times(found: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:g} ms" for name, value in found.items()) or "unknown"
