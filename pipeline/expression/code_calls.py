"""Python for calls of the standard functions."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from pipeline.expression import build, checks
from pipeline.expression.fault import ExpressionFault, did_you_mean
from pipeline.expression.functions import (
    FUNCTIONS,
    STANDARD,
    Function,
    compile_pattern,
    matches,
    search,
)
from pipeline.expression.generator import Generator, Piece
from pipeline.expression.kinds import Failure
from pipeline.expression.parser import MACROS
from pipeline.expression.times import find_zone, parse_duration, parse_timestamp
from pipeline.expression.tree import Call

_NAMES = {each.name for each in STANDARD}
# What a constant text becomes when the expression is compiled, so that it costs nothing later.
_READ: dict[str, Callable[[str], Any]] = {"timestamp": parse_timestamp, "duration": parse_duration}


def call_of(generator: Generator, node: Call) -> Piece:
    """`name(arguments)` and `receiver.name(arguments)`."""
    nodes = [*([] if node.receiver is None else [node.receiver]), *node.arguments]
    function = FUNCTIONS.get((node.name, node.receiver is not None, len(nodes)))
    if function is None:
        raise _unknown(node)
    pieces = [generator.piece(each) for each in nodes]
    for piece, takes, at in zip(pieces, function.takes, (each.at for each in nodes), strict=True):
        if takes and not _may_be(piece.type, takes):
            raise ExpressionFault(
                f"{node.name}() does not take {piece.type}",
                at,
                f"it takes {', '.join(sorted(takes - {'number'}))}",
            )
    if node.name == "dyn":
        return Piece(pieces[0].python, "dyn")
    generator.makes = generator.makes or function.gives in ("uint", "type")
    python = _prepared(generator, node, function, pieces) or _called(generator, function, pieces)
    return Piece(build.placed(python, node.at), function.gives)


def _may_be(kind: str, takes: frozenset[str]) -> bool:
    return kind == "dyn" or kind in takes or (kind == "number" and bool(takes & checks.NUMERIC))


def _called(generator: Generator, function: Function, pieces: list[Piece]) -> ast.expr:
    budget = [generator.budget()] if function.budget else []
    return generator.call(function.call, *(piece.python for piece in pieces), *budget)


def _prepared(
    generator: Generator, node: Call, function: Function, pieces: list[Piece]
) -> ast.expr | None:
    """Return the call with its constant text read already, or None where there is none.

    A text that cannot be read is a fault now: it would fail on every message.
    """
    text = pieces[-1].python.value if isinstance(pieces[-1].python, ast.Constant) else None
    if not isinstance(text, str):
        return None
    at = (node.arguments or (node,))[-1].at
    try:
        if function.call is matches:
            pattern = build.name(generator.share(compile_pattern(text)))
            return generator.call(search, pieces[0].python, pattern, generator.budget())
        if node.name in _READ:
            return build.name(generator.share(_READ[node.name](text)))
    except Failure as failure:
        raise ExpressionFault(failure.message, at) from None
    if node.name.startswith("get") and find_zone(text) is None:
        hint = "such as Europe/Paris or +01:00"
        raise ExpressionFault(f"there is no time zone {text!r}", at, hint)
    return None


def _unknown(node: Call) -> ExpressionFault:
    name, member = node.name, node.receiver is not None
    if name in MACROS and not member:
        return ExpressionFault(f"{name}() needs a list", node.at, f"write list.{name}(x, …)")
    if name == "has":
        return ExpressionFault("has() asks for one field", node.at, "write has(a.b)")
    ways = [each for each in STANDARD if each.name == name]
    if not ways:
        return ExpressionFault(
            f"there is no function {name}()", node.at, did_you_mean(name, _NAMES | {*MACROS, "has"})
        )
    written = sorted({_usage(each) for each in ways})
    return ExpressionFault(
        f"{name}() cannot be called so", node.at, f"write {' or '.join(written)}"
    )


def _usage(function: Function) -> str:
    count = len(function.takes) - function.member
    arguments = ", ".join("xyz"[:count])
    return (
        f"value.{function.name}({arguments})"
        if function.member
        else (f"{function.name}({arguments})")
    )
