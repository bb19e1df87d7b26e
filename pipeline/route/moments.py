"""Times of nodes: when a message was, and spans of time as users write them, in milliseconds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from pipeline.route.visit import Visit
from pipeline.rulebook.duration import parse_duration

SPAN_MS_MAX = 366 * 86_400_000  # timers and kept keys must come to an end


def _span(value: Any) -> int:
    span_ms = round(parse_duration(value) * 1_000)
    if not 0 < span_ms <= SPAN_MS_MAX:
        raise ValueError("must be a duration from `1ms` to `366d`")
    return span_ms


Span = Annotated[
    int,
    PlainValidator(_span),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d) ?)+$"},
            ]
        }
    ),
]
"""A duration (`10s`, `1h30m`, or a number of seconds), kept in milliseconds; never nothing."""


def as_of(visit: Visit) -> int:
    """Return when a message was, in epoch milliseconds: never later than it was received, since a
    device's clock that is ahead must not outrun what really comes later.
    """
    return min(visit.message.time_ms, arrived(visit))


def arrived(visit: Visit) -> int:
    """Return when a message was received, in epoch milliseconds; never later than now, since the
    clock of the door may be ahead too.
    """
    return min(visit.message.received_ms, visit.now_ms)
