"""The shape of a parsed expression.

`at` is the offset of the token that names the operation; no two nodes of a tree share one, so
that an error's offset leads back to its node. `height` and `size` count nodes: the longest way
down, and all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What all nodes have."""

    at: int
    height: int = 1
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Node):
    """A literal; `type` is its CEL type."""

    value: Any
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Node):
    """A name; `root`: written `.name`, so that no variable of a macro hides it."""

    name: str
    root: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Node):
    """`operand.field`; `test`: as `has(operand.field)`."""

    operand: Node
    field: str
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Node):
    """`operand[index]`."""

    operand: Node
    index: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Node):
    """`name(arguments)`, or `receiver.name(arguments)`."""

    name: str
    receiver: Node | None
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Node):
    """`-operand` or `!operand`."""

    sign: str
    operand: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Node):
    """An operation on two values: arithmetic, relations, `in`."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Logic(Node):
    """A row of operands joined by `&&`, or by `||`."""

    sign: Literal["&&", "||"]
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition(Node):
    """`test ? yes : no`."""

    test: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf(Node):
    """`[items]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf(Node):
    """`{key: value}`."""

    keys: tuple[Node, ...]
    values: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Macro(Node):
    """`over.name(variable, …)`: `test` is the predicate, `result` what `map` makes."""

    name: str
    over: Node
    variable: str
    test: Node | None
    result: Node | None


def children(node: Node) -> list[Node]:
    """Return the nodes right below this one, in the order of their fields."""
    below: list[Node] = []
    for name in type(node).__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, Node):
            below.append(value)
        elif isinstance(value, tuple):
            below.extend(part for part in value if isinstance(part, Node))
    return below


def qualified(node: Node) -> str:
    """Return `a.b.c` for names joined by dots, else an empty string."""
    parts: list[str] = []
    while isinstance(node, Select) and not node.test:
        parts.append(node.field)
        node = node.operand
    return ".".join([node.name, *reversed(parts)]) if isinstance(node, Name) else ""
