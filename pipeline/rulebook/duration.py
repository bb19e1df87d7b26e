"""Durations as people write them: `10s`, `5m`, `1h30m`, `7d`, or a number of seconds."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LENGTH_MAX = 40


def parse_duration(value: Any) -> float:
    """Return seconds. ValueError: `value` is no duration; says how to write one."""
    if isinstance(value, str) and len(value) <= _LENGTH_MAX:
        text = value.replace(" ", "")
        if _WHOLE.fullmatch(text):
            return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
        if _NUMBER.fullmatch(text):  # `${env:NAME}` gives text
            return float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        seconds = float(value)
        if math.isfinite(seconds):
            return seconds
    raise ValueError("must be a duration like `10s`, `5m`, `6h`, `7d`, or a number of seconds")


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d) ?)+$"},
            ]
        }
    ),
]
"""A field of seconds that takes what `parse_duration` takes."""
