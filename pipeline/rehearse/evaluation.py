"""An expression, its scope and its result → why it gave that: its source with the values in it.

`telemetry.temperature (31.5) > 30`, and the result `true`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.expression import Expression
from pipeline.expression.kinds import Failure
from pipeline.expression.seen import ABSENT, seen
from pipeline.expression.value import to_json
from pipeline.rehearse.compare import shown

VALUE_MAX = 80
"""Characters of one value in a text; the whole value is in `values`."""


class Evaluation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an expression gave. `text` is its source with each place's value behind it; `values`
    are they, by path, without those that are absent. `error` in place of a result: it failed.
    """

    expression: str
    text: str
    values: dict[str, Any] = {}
    result: Any = None
    error: str = ""


def evaluation_of(
    expression: Expression, scope: Mapping[str, Any], result: Any = None, *, error: str = ""
) -> Evaluation:
    """Return what there is to say; raises nothing."""
    source = expression.source
    places = seen(expression, scope)
    values = {each.path: each.value for each in places if each.value is not ABSENT}
    text, done = "", 0
    for place in places:
        text += f"{source[done : place.end]} ({short(place.value)})"
        done = place.end
    text += source[done:]
    if expression.is_path:
        text = source
    return Evaluation(source, " ".join(text.split()), values, _json(result), error)


def short(value: Any) -> str:
    """Return a value as one line of JSON, shortened."""
    if value is ABSENT:
        return "absent"
    if value is None:
        return "null"
    text = shown(value)
    return text if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}…"


def _json(value: Any) -> Any:
    try:
        return to_json(value)
    except (Failure, RecursionError):
        return str(value)
