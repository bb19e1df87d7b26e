"""Python for literals, names, fields, indexes, lists and maps."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from pipeline.expression import build, checks, operators
from pipeline.expression.checks import Shape
from pipeline.expression.fault import ExpressionFault, did_you_mean
from pipeline.expression.generator import Generator, Piece
from pipeline.expression.kinds import KINDS, UInt
from pipeline.expression.tree import Constant, Index, ListOf, MapOf, Name, Node, Select, qualified


def constant_of(generator: Generator, node: Constant) -> Piece:
    """A literal."""
    value = node.value
    if isinstance(value, UInt):
        generator.makes = True
        return Piece(build.name(generator.share(value)), "uint")
    return Piece(build.placed(build.constant(value), node.at), node.type)


def name_of(generator: Generator, node: Name) -> Piece:
    """A name: of a macro's variable, of a type, or of a root of the scope."""
    title = node.name
    if not node.root and title in generator.variables:
        return Piece(build.name(generator.variables[title]), "dyn")
    if title in KINDS and (generator.allowed is None or title not in generator.allowed):
        return _kind(generator, title)
    if generator.allowed is not None and title not in generator.allowed:
        known = {*generator.allowed, *generator.variables}
        hint = did_you_mean(title, known)
        if not hint:
            hint = f"known: {', '.join(sorted(known))}" if known else "no names are known here"
        raise ExpressionFault(f"unknown name `{title}`", node.at, hint)
    generator.names.add(title)
    python = build.item(build.name("scope"), build.constant(title))
    return Piece(build.placed(python, node.at), *checks.known(generator.allowed, title))


def _kind(generator: Generator, title: str) -> Piece:
    generator.makes = True
    return Piece(build.name(generator.share(KINDS[title])), "type")


def select_of(generator: Generator, node: Select) -> Piece:
    """`a.b`, `has(a.b)`, and the qualified names of types."""
    title = qualified(node)
    root = title.partition(".")[0]
    if title in KINDS and root not in generator.variables and root not in (generator.allowed or ()):
        return _kind(generator, title)
    operand = generator.piece(node.operand)
    if operand.type not in ("map", "dyn"):
        raise ExpressionFault(f"{operand.type} has no field `{node.field}`", node.at)
    kind, fields = _field(operand, node.operand, node.field, node.at)
    field = build.constant(node.field)
    if not node.test:
        python = build.item(_subscribable(generator, operand, node.at), field)
        return Piece(build.placed(python, node.at), kind, fields)
    container = generator.named(operand, node.at)
    python = build.choose(
        build.type_is(container, "dict"),
        build.compare(field, "in", build.name(container)),
        generator.call(operators.has, build.name(container), field),
    )
    return Piece(build.placed(python, node.at), "bool")


def index_of(generator: Generator, node: Index) -> Piece:
    """`a[b]`."""
    operand, key = generator.piece(node.operand), generator.piece(node.index)
    if operand.type not in ("map", "list", "dyn"):
        raise ExpressionFault(f"{operand.type} is neither a list nor a map", node.at)
    if operand.type == "list" and key.type not in (*checks.NUMERIC, "dyn"):
        raise ExpressionFault(f"{key.type} cannot be the index of a list", node.at)
    constant = key.python.value if isinstance(key.python, ast.Constant) else None
    kind, fields = "dyn", None
    if isinstance(constant, str):
        kind, fields = _field(operand, node.operand, constant, node.at)
        python = build.item(_subscribable(generator, operand, node.at), key.python)
    elif type(constant) is int and constant >= 0:
        container = generator.named(operand, node.at)
        python = build.choose(
            build.type_is(container, "list"),
            build.item(build.name(container), key.python),
            generator.call(operators.index, build.name(container), key.python),
        )
    else:
        python = generator.call(operators.index, operand.python, key.python)
    return Piece(build.placed(python, node.at), kind, fields)


def _field(
    operand: Piece, node: Node, field: str, at: int
) -> tuple[str, Mapping[str, Shape] | None]:
    """Return what is known of a field. ExpressionFault: the map is known not to have it."""
    if operand.fields is None:
        return "dyn", None
    if field not in operand.fields:
        hint = did_you_mean(field, operand.fields)
        whose = f"`{qualified(node)}` has" if qualified(node) else "the map has"
        listed = ", ".join(f"`{each}`" for each in sorted(operand.fields))
        raise ExpressionFault(f"{whose} no field `{field}`", at, hint or f"there are {listed}")
    return checks.typed(operand.fields[field])


def _subscribable(generator: Generator, piece: Piece, at: int) -> ast.expr:
    """Return the piece for use before `[…]`. Python warns where a literal cannot have the key."""
    if isinstance(piece.python, ast.Subscript | ast.Name | ast.Call | ast.Dict):
        return piece.python
    return build.name(generator.named(piece, at))


def list_of(generator: Generator, node: ListOf) -> Piece:
    """`[a, b]`: a new list each time."""
    generator.makes = True
    items = [generator.piece(item).python for item in node.items]
    return Piece(build.placed(build.many(items, ast.List), node.at), "list")


def map_of(generator: Generator, node: MapOf) -> Piece:
    """`{a: b}`: a new map each time."""
    generator.makes = True
    keys = [generator.piece(key) for key in node.keys]
    values = [generator.piece(value).python for value in node.values]
    seen: set[tuple[str, Any]] = set()
    for key, at in zip(keys, (key.at for key in node.keys), strict=True):
        if key.type not in ("string", "int", "uint", "bool", "number", "dyn"):
            raise ExpressionFault(f"{key.type} cannot be a key of a map", at)
        if isinstance(key.python, ast.Constant):
            entry = (key.type, key.python.value)
            if entry in seen:
                raise ExpressionFault(f"the key {entry[1]!r} stands twice in the map", at)
            seen.add(entry)
    if all(isinstance(key.python, ast.Constant) and key.type == "string" for key in keys):
        python: ast.expr = ast.Dict([key.python for key in keys], values)
    else:
        python = generator.call(
            operators.make_map,
            build.many([key.python for key in keys], ast.Tuple),
            build.many(values, ast.Tuple),
        )
    return Piece(build.placed(python, node.at), "map")
