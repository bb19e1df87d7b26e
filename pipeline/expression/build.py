"""Small builders of Python's syntax tree, so that the generator reads like what it generates.

Generated code holds only names that this package made up, constants, calls of the functions
handed to it, and plain operators. There is no builder for an attribute, so there is none in it.
An error's line number is the offset in the expression plus one: `placed` puts it there.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, TypeVar

_A = TypeVar("_A", bound=ast.AST)

_OPERATORS: dict[str, ast.operator] = {"+": ast.Add(), "-": ast.Sub(), "*": ast.Mult()}
_COMPARISONS: dict[str, ast.cmpop] = {
    "<": ast.Lt(),
    "<=": ast.LtE(),
    ">": ast.Gt(),
    ">=": ast.GtE(),
    "==": ast.Eq(),
    "!=": ast.NotEq(),
    "in": ast.In(),
    "is": ast.Is(),
    "is not": ast.IsNot(),
}


def placed(node: _A, at: int) -> _A:
    """Return the node, standing at an offset of the expression."""
    place: Any = node
    place.lineno = place.end_lineno = at + 1
    place.col_offset = place.end_col_offset = 0
    return node


def name(text: str) -> ast.expr:
    """A variable, read."""
    return ast.Name(text, ast.Load())


def constant(value: Any) -> ast.expr:
    """A constant; only types that Python's compiler takes as they are."""
    return ast.Constant(value)


def call(function: str, *arguments: ast.expr) -> ast.expr:
    """`function(arguments)`."""
    return ast.Call(name(function), list(arguments), [])


def item(container: ast.expr, key: ast.expr) -> ast.expr:
    """`container[key]`."""
    return ast.Subscript(container, key, ast.Load())


def compare(left: ast.expr, sign: str, right: ast.expr) -> ast.expr:
    """`left sign right`, a comparison."""
    return ast.Compare(left, [_COMPARISONS[sign]], [right])


def operate(left: ast.expr, sign: str, right: ast.expr) -> ast.expr:
    """`left sign right`, arithmetic."""
    return ast.BinOp(left, _OPERATORS[sign], right)


def negation(value: ast.expr) -> ast.expr:
    """`not value`."""
    return ast.UnaryOp(ast.Not(), value)


def either(*values: ast.expr) -> ast.expr:
    """`a or b`, of Python's bools."""
    return ast.BoolOp(ast.Or(), list(values))


def both(*values: ast.expr) -> ast.expr:
    """`a and b`, of Python's bools."""
    return ast.BoolOp(ast.And(), list(values))


def choose(test: ast.expr, yes: ast.expr, no: ast.expr) -> ast.expr:
    """`yes if test else no`."""
    return ast.IfExp(test, yes, no)


def type_is(value: str, kind: str) -> ast.expr:
    """`type(value) is kind`."""
    return compare(call("type", name(value)), "is", name(kind))


def a_number(value: str) -> ast.expr:
    """`type(value) is float or type(value) is int`; not of bool."""
    return either(type_is(value, "float"), type_is(value, "int"))


def a_bool(value: str) -> ast.expr:
    """`value is True or value is False`."""
    return either(
        compare(name(value), "is", constant(True)), compare(name(value), "is", constant(False))
    )


def many(values: Sequence[ast.expr], kind: type[ast.List] | type[ast.Tuple]) -> ast.expr:
    """`[values]` or `(values)`."""
    return kind(list(values), ast.Load())


def assign(target: str, value: ast.expr) -> ast.stmt:
    """`target = value`."""
    return ast.Assign([ast.Name(target, ast.Store())], value)


def extend(target: str, value: ast.expr) -> ast.stmt:
    """`target += value`."""
    return ast.AugAssign(ast.Name(target, ast.Store()), ast.Add(), value)


def when(test: ast.expr, body: list[ast.stmt], otherwise: list[ast.stmt] | None = None) -> ast.stmt:
    """`if test: body else: otherwise`."""
    return ast.If(test, body, otherwise or [])


def loop(variable: str, over: ast.expr, body: list[ast.stmt]) -> ast.stmt:
    """`for variable in over: body`."""
    return ast.For(ast.Name(variable, ast.Store()), over, body, [])


def attempt(body: list[ast.stmt], errors: str, target: str, note: str) -> ast.stmt:
    """`try: body`, `except errors as error: target = note(error)`."""
    handler = ast.ExceptHandler(name(errors), "error", [assign(target, call(note, name("error")))])
    return ast.Try(body, [handler], [], [])


def throw(error: ast.expr) -> ast.stmt:
    """`raise error`."""
    return ast.Raise(error, None)


def statement(value: ast.expr) -> ast.stmt:
    """An expression for its effect."""
    return ast.Expr(value)


def spend(budget: str, steps: int) -> ast.stmt:
    """`budget[0] -= steps`."""
    target = ast.Subscript(name(budget), constant(0), ast.Store())
    return ast.AugAssign(target, ast.Sub(), constant(steps))


def function(title: str, parameters: Sequence[str], body: list[ast.stmt]) -> ast.stmt:
    """`def title(parameters): body`."""
    arguments = ast.arguments(
        posonlyargs=[],
        args=[ast.arg(parameter) for parameter in parameters],
        kwonlyargs=[],
        kw_defaults=[],
        defaults=[],
    )
    made: Any = ast.FunctionDef(title, arguments, body, [])
    made.type_params = []  # a field since Python 3.12
    return made  # type: ignore[no-any-return]


def give(value: ast.expr) -> ast.stmt:
    """`return value`."""
    return ast.Return(value)
