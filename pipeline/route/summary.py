"""Summaries of many values: count, sum, min, max, mean, first, last, distinct.

In: values one by one, with their times. Out: what is kept of them (JSON, small), which can be
joined with another's, and the result. A summary's input is never changed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import PlainValidator, WithJsonSchema

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage
from pipeline.route.fields import FieldFault
from pipeline.route.places import MISSING, Path, look, number_at, path_of
from pipeline.rulebook.catalogue import suggest

FUNCTIONS = ("count", "sum", "min", "max", "mean", "first", "last", "distinct")
DISTINCT_MAX = 1_000  # different values that are told apart
_OF_ANY_VALUE = ("count", "first", "last", "distinct")


class Summary(NamedTuple):
    """A function of the values at a place."""

    function: str
    place: Path


def value_for(summary: Summary, message: DeviceMessage) -> Any:
    """Return a message's value, `MISSING` where it has none (null is none).

    MessageError (code `number`): the function is of numbers, and it is something else.
    """
    if summary.function in _OF_ANY_VALUE:
        value = look(message, summary.place)
        return MISSING if value is None else value
    return number_at(message, summary.place)


def begin(function: str, value: Any, time_ms: int) -> Any:
    """Return what is kept of one value."""
    if function == "count":
        return 1
    if function == "mean":
        return [1, value]
    if function in ("first", "last"):
        return [time_ms, value]
    if function == "distinct":
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return {blake2b(text, digest_size=6).hexdigest(): 1}
    return value


def join(function: str, one: Any, other: Any) -> Any:
    """Return what is kept of the values of both; of equal times, `one` came first.

    MessageError (code `distinct`): they are too many to tell apart.
    """
    if function in ("count", "sum"):
        return one + other
    if function == "min":
        return min(one, other)
    if function == "max":
        return max(one, other)
    if function == "mean":
        return [one[0] + other[0], one[1] + other[1]]
    if function == "first":
        return other if other[0] < one[0] else one
    if function == "last":
        return one if one[0] > other[0] else other
    both = {**one, **other}
    if len(both) > DISTINCT_MAX:
        raise MessageError(
            f"there are more than {DISTINCT_MAX} distinct values",
            code="distinct",
            limit=DISTINCT_MAX,
        )
    return both


def result(function: str, kept: Any) -> Any:
    """Return the summary of what was kept."""
    if function == "mean":
        return kept[1] / kept[0]
    if function in ("first", "last"):
        return kept[1]
    return len(kept) if function == "distinct" else kept


def _summary(value: Any) -> Summary:
    if not isinstance(value, dict) or len(value) != 1:
        raise FieldFault("must be a function of a place", suggestion="like `mean: telemetry.level`")
    ((function, place),) = value.items()
    if function not in FUNCTIONS:
        hint = suggest(str(function), FUNCTIONS) or f"one of {', '.join(FUNCTIONS)}"
        raise FieldFault(f"there is no function `{function}`", path=(function,), suggestion=hint)
    try:
        return Summary(function, path_of(place))
    except FieldFault as fault:
        raise FieldFault(fault.message, path=(function,), suggestion=fault.suggestion) from fault


Summarized = Annotated[
    Summary,
    PlainValidator(_summary),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {name: {"type": "string"} for name in FUNCTIONS},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
    ),
]
"""One function of one place: `{mean: telemetry.temperature}`."""
