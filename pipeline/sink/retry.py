"""How often a destination is tried again, and the durations and sizes that users write in YAML."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from pipeline.part import Part

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
WAITS_MAX = 50
EXPONENT_MAX = 64  # 2 ** 64 seconds is past any `max`; a bound keeps the power from overflowing.


def seconds(value: Any) -> Any:
    """Return the seconds of `10`, `1.5`, `"10s"`, `"5m"`, `"6h"`, `"7d"` or `"250ms"`.

    What is neither text nor a number is returned as it is, for pydantic to refuse.
    ValueError: text that is no duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("write a duration as seconds, or as 250ms, 10s, 5m, 6h or 7d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def byte_count(value: Any) -> Any:
    """Return the bytes of `1000`, `"64kB"`, `"10MB"`, `"1GiB"`; as `seconds` does it."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError("write a size as bytes, or as 64kB, 10MB, 1GB or 10MiB")
    return int(float(match[1]) * unit)


Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema({"type": ["number", "string"], "examples": [10, "10s", "5m", "6h", "7d"]}),
]
ByteCount = Annotated[
    int,
    BeforeValidator(byte_count),
    WithJsonSchema({"type": ["integer", "string"], "examples": [1000000, "10MB", "1GiB"]}),
]


class RetryConfig(Part):
    """When a destination that failed is tried again: `retry:` of a sink.

    ```yaml
    retry:
      first: 1s          # after the first failure
      factor: 2          # each wait is so many times the one before
      max: 5m            # no wait is longer, save what the destination itself asks for
      jitter: 0.5        # up to this part of a wait is left away at random
      give_up_after: 2d  # then the message goes to dead.letter; without it: never
    ```
    Or with a schedule of its own, whose last wait is repeated, in place of the first three:
    `waits: [5s, 5m, 30m, 2h, 5h, 10h]`.
    """

    first: Seconds = Field(default=1.0, gt=0, le=86_400)
    max: Seconds = Field(default=300.0, gt=0, le=86_400)
    factor: float = Field(default=2.0, ge=1, le=100)
    jitter: float = Field(default=0.5, ge=0, le=1)
    waits: tuple[Annotated[Seconds, Field(gt=0, le=86_400)], ...] = Field(
        default=(), max_length=WAITS_MAX
    )
    give_up_after: Seconds | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_one_schedule(self) -> Self:
        if self.waits and self.model_fields_set & {"first", "factor", "max"}:
            raise ValueError("`waits` stands in place of `first`, `factor` and `max`")
        return self

    def delay_s(self, attempts: int, random: float) -> float:
        """Return the wait after `attempts` failures (from 1); `random` is in [0, 1)."""
        if self.waits:
            delay = self.waits[min(attempts, len(self.waits)) - 1]
        else:
            exponent = min(attempts - 1, EXPONENT_MAX)
            delay = min(self.max, self.first * self.factor**exponent)
        return delay * (1 - self.jitter * random)
