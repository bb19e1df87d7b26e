"""An expression and a scope in; the places of the scope that the expression names out, each with
what stands there: for those who explain a result. Nothing is computed, and nothing is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeline.expression.expression import Expression
from pipeline.expression.fault import ExpressionFault
from pipeline.expression.kinds import Failure
from pipeline.expression.lexer import Token, tokens
from pipeline.expression.value import to_json

_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})


class _Absent:
    """Nothing stands at a place."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""The value of a place where there is none."""


class Seen(NamedTuple):
    """A place that an expression names: `source[start:end]` is its path, `value` is JSON or
    `ABSENT`.
    """

    start: int
    end: int
    path: str
    value: Any


def seen(expression: Expression, scope: Mapping[str, Any]) -> list[Seen]:
    """Return the places in the order of the source; variables of macros are none."""
    source = expression.source
    try:
        found = list(tokens(source))
    except ExpressionFault:
        return []
    bound = _bound(found)
    places = []
    at = 0
    while at < len(found):
        token = found[at]
        is_root = token.kind == "word" and (at == 0 or found[at - 1].kind != ".")
        if not is_root or token.value in bound or _is(found, at + 1, "("):
            at += 1
            continue
        steps, following = _path(found, at)
        end = found[following - 1].end
        places.append(Seen(token.at, end, source[token.at : end], _value(steps, scope)))
        at = following
    return places


def _bound(found: Sequence[Token]) -> frozenset[str]:
    """Return the names of macros' variables: `x` of `list.exists(x, …)`."""
    return frozenset(
        found[at + 2].value
        for at, token in enumerate(found[:-3])
        if token.kind == "word"
        and token.value in _MACROS
        and _is(found, at + 1, "(")
        and found[at + 2].kind == "word"
        and _is(found, at + 3, ",")
    )


def _path(found: Sequence[Token], at: int) -> tuple[list[Any], int]:
    """Return the steps of the path that begins at `at`, and which token follows it."""
    steps = [found[at].value]
    at += 1
    while True:
        if _is(found, at, ".") and not _is(found, at + 2, "(") and at + 1 < len(found) - 1:
            steps.append(str(found[at + 1].value).strip("`"))
            at += 2
        elif _is(found, at, "[") and found[at + 1].kind == "literal" and _is(found, at + 2, "]"):
            steps.append(found[at + 1].value)
            at += 3
        else:
            return steps, at


def _is(found: Sequence[Token], at: int, kind: str) -> bool:
    return at < len(found) and found[at].kind == kind


def _value(steps: Sequence[Any], scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    try:
        for step in steps:
            value = value[step]
        return to_json(value)
    except (LookupError, TypeError, Failure, RecursionError):
        return ABSENT
