"""Python for the operators on one and two values."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from pipeline.expression import build, checks, operators
from pipeline.expression.fault import ExpressionFault
from pipeline.expression.generator import Generator, Piece
from pipeline.expression.tree import Binary, Constant, ListOf, Node, Unary

_ORDER: dict[str, Callable[..., Any]] = {
    "<": operators.less,
    "<=": operators.less_equal,
    ">": operators.greater,
    ">=": operators.greater_equal,
}
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": operators.add,
    "-": operators.subtract,
    "*": operators.multiply,
    "/": operators.divide,
    "%": operators.modulo,
}
# `x == constant` is Python's `==` for these; of numbers, only 0 and 1 are equal to a bool there.
_PLAIN_EQUAL = frozenset({"string", "bytes", "null"})
_SET_FROM = 8  # a list of so many texts is searched as a set


def _texts(node: Node) -> list[str] | None:
    """Return the texts of a list of nothing else, or None."""
    if not isinstance(node, ListOf):
        return None
    constants = [item for item in node.items if isinstance(item, Constant)]
    if len(constants) < len(node.items) or any(item.type != "string" for item in constants):
        return None
    return [item.value for item in constants]


def unary_of(generator: Generator, node: Unary) -> Piece:
    """`-a` and `!a`."""
    if node.sign == "!":
        return Piece(build.negation(generator.boolean(node.operand, "what `!` negates")), "bool")
    operand = generator.piece(node.operand)
    if operand.type not in ("int", "double", "number", "dyn"):
        raise ExpressionFault(f"cannot compute -{operand.type}", node.at)
    kind = "number" if operand.type == "dyn" else operand.type
    return Piece(build.placed(generator.call(operators.negate, operand.python), node.at), kind)


def binary_of(generator: Generator, node: Binary) -> Piece:
    """`a + b`, `a < b`, `a in b` and their like."""
    left, right = generator.piece(node.left), generator.piece(node.right)
    if node.sign in _ORDER:
        python = _order(generator, node, left, right)
    elif node.sign in ("==", "!="):
        python = _equality(generator, node, left, right)
    elif node.sign == "in":
        python = _contained(generator, node, left, right)
    else:
        return _arithmetic(generator, node, left, right)
    return Piece(build.placed(python, node.at), "bool")


def _wrong(node: Binary, left: Piece, right: Piece) -> ExpressionFault:
    hint = ""
    if node.sign == "+" and "string" in (left.type, right.type):
        hint = "write string(…) around the other one"
    elif node.sign == "%" and "double" in (left.type, right.type):
        hint = "it is for whole numbers: write int(…)"
    elif "type" in (left.type, right.type) and "string" in (left.type, right.type):
        hint = "a type is written without quotes: type(x) == int"
    return ExpressionFault(f"{left.type} {node.sign} {right.type} cannot work", node.at, hint)


def _order(generator: Generator, node: Binary, left: Piece, right: Piece) -> ast.expr:
    if not checks.ordered(left.type, right.type):
        raise _wrong(node, left, right)
    if "dyn" not in (left.type, right.type):
        return build.compare(left.python, node.sign, right.python)
    if left.type == right.type:
        return generator.call(_ORDER[node.sign], left.python, right.python)
    left, right = generator.simple(left, node.at), generator.simple(right, node.at)
    asked = left if left.type == "dyn" else right
    known = right if left.type == "dyn" else left
    slow = generator.call(_ORDER[node.sign], left.python, right.python)
    if not isinstance(asked.python, ast.Name):
        return slow
    if known.type in checks.NUMERIC:
        test = build.a_number(asked.python.id)
    elif known.type == "string":
        test = build.type_is(asked.python.id, "str")
    else:
        return slow
    return build.choose(test, build.compare(left.python, node.sign, right.python), slow)


def _equality(generator: Generator, node: Binary, left: Piece, right: Piece) -> ast.expr:
    if not checks.comparable(left.type, right.type):
        raise _wrong(node, left, right)
    if _plainly_equal(left, right):
        return build.compare(left.python, node.sign, right.python)
    same = generator.call(operators.equal, left.python, right.python, generator.budget())
    return same if node.sign == "==" else build.negation(build.placed(same, node.at))


def _plainly_equal(left: Piece, right: Piece) -> bool:
    """Return whether Python's `==` says what CEL's says."""
    if "dyn" not in (left.type, right.type):
        return "list" not in (left.type, right.type) and "map" not in (left.type, right.type)
    for side in (left, right):
        if side.type in _PLAIN_EQUAL:
            return True
        if side.type in ("int", "double") and isinstance(side.python, ast.Constant):
            return side.python.value not in (0, 1)
    return False


def _contained(generator: Generator, node: Binary, left: Piece, right: Piece) -> ast.expr:
    if not checks.contained(right.type):
        raise ExpressionFault(
            f"`in` looks into a list or a map, not into {right.type}",
            node.at,
            "write text.contains(…)" if right.type == "string" else "",
        )
    constants = _texts(node.right)
    if constants is None:
        return generator.call(operators.is_in, left.python, right.python, generator.budget())
    if len(constants) < _SET_FROM:
        members = build.many([build.constant(text) for text in constants], ast.Tuple)
        return build.compare(left.python, "in", members)
    value = generator.named(left, node.at)
    members = build.constant(frozenset(constants))
    return build.both(build.type_is(value, "str"), build.compare(build.name(value), "in", members))


def _arithmetic(generator: Generator, node: Binary, left: Piece, right: Piece) -> Piece:
    kind = checks.arithmetic(node.sign, left.type, right.type)
    if kind is None:
        raise _wrong(node, left, right)
    if node.sign == "+" and kind in ("list", "dyn"):
        generator.makes = True
    python = None
    if "double" in (left.type, right.type) and node.sign in ("+", "-", "*"):
        python = _double(generator, node, left, right)
    if python is None:
        more = [generator.budget()] if node.sign == "+" else []
        python = generator.call(_ARITHMETIC[node.sign], left.python, right.python, *more)
    return Piece(build.placed(python, node.at), kind)


def _double(generator: Generator, node: Binary, left: Piece, right: Piece) -> ast.expr | None:
    """Return inline arithmetic: where a double takes part, Python's is CEL's."""
    if "dyn" not in (left.type, right.type):
        return build.operate(left.python, node.sign, right.python)
    left, right = generator.simple(left, node.at), generator.simple(right, node.at)
    asked = left if left.type == "dyn" else right
    if not isinstance(asked.python, ast.Name):
        return None
    more = [generator.budget()] if node.sign == "+" else []
    return build.choose(
        build.a_number(asked.python.id),
        build.operate(left.python, node.sign, right.python),
        generator.call(_ARITHMETIC[node.sign], left.python, right.python, *more),
    )
