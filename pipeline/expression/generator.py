"""A tree in, a Python module out that defines `expression(scope)`, the tree's meaning.

Each node becomes a Python expression (a `Piece`), after statements where Python has no expression
for it; the functions that do so are handed in, one a class of node. A value's type decides how
much of CEL's rules is left to check when the code runs: where the types are known, or Python's
own operator says the same, that operator stands inline; else the code calls `operators` and
`functions`. What is surely wrong raises `ExpressionFault`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.expression import build, operators
from pipeline.expression.checks import Roots, Shape
from pipeline.expression.fault import ExpressionFault, Limits
from pipeline.expression.tree import Node

BLOCKS_MAX = 8  # Python allows 20 loops and tries inside each other; deeper ones become functions
BUDGET = "budget"
# The types of results that may leave as they are.
_FINISHED = frozenset({"bool", "int", "double", "null", "string", "bytes", "timestamp", "duration"})
_BUILTINS = (type, float, int, str, dict, list)


@dataclass(frozen=True, slots=True)
class Piece:
    """Python that computes a node's value, and what is known of the value's type."""

    python: ast.expr
    type: str
    fields: Mapping[str, Shape] | None = None  # of a map whose fields are known; no others are

    @property
    def simple(self) -> bool:
        """A variable or a constant: it may be written twice."""
        return isinstance(self.python, ast.Name | ast.Constant)


class Generator:
    """Makes the Python of one expression; use it once.

    `names` are the roots that the expression read, `globals` what its code needs around it.
    """

    def __init__(
        self,
        makers: Mapping[type[Node], Callable[[Generator, Any], Piece]],
        allowed: Roots | None,
        limits: Limits,
    ) -> None:
        self._makers = makers
        self._limits = limits
        self._body: list[ast.stmt] = []
        self._count = 0
        self._blocks = 0
        self._spends = False
        self.allowed = allowed
        self.variables: dict[str, str] = {}  # of macros: CEL's name → ours
        self.makes = False  # lists, maps, uints or types: the result must be looked at
        self.names: set[str] = set()
        self.result = "dyn"  # the type that the whole expression gives
        self.globals: dict[str, Any] = {"__builtins__": {}}
        self.globals |= {builtin.__name__: builtin for builtin in _BUILTINS}

    def module(self, tree: Node) -> ast.Module:
        """Return the module; the function's name in it is `expression`."""
        piece = self.piece(tree)
        self.result = piece.type
        result = piece.python
        if piece.type in ("uint", "type") or (self.makes and piece.type not in _FINISHED):
            result = self.call(operators.finish, result, self.budget())
        body = [*self._body, build.placed(build.give(result), tree.at)]
        if self._spends:
            limits = (self._limits.steps_max, self._limits.size_max)
            numbers = build.many([build.constant(limit) for limit in limits], ast.List)
            body.insert(0, build.placed(build.assign(BUDGET, numbers), tree.at))
        function = build.placed(build.function("expression", ["scope"], body), tree.at)
        return ast.fix_missing_locations(ast.Module([function], []))

    # For the makers of nodes

    def piece(self, node: Node) -> Piece:
        """Return the Python of a node; its statements are appended to the current block."""
        return self._makers[type(node)](self, node)

    def boolean(self, node: Node, what: str) -> ast.expr:
        """Return the Python of a node that must be a bool; `what` names it in a fault."""
        piece = self.piece(node)
        if piece.type == "bool":
            return piece.python
        if piece.type != "dyn":
            raise ExpressionFault(f"{what} must be a bool, not {piece.type}", node.at)
        value = self.named(piece, node.at)
        wrong = self.call(operators.not_bool, build.name(value))
        return build.placed(build.choose(build.a_bool(value), build.name(value), wrong), node.at)

    def new(self, letter: str = "t") -> str:
        """Return a fresh Python name."""
        self._count += 1
        return f"{letter}{self._count}"

    def emit(self, statement: ast.stmt, at: int) -> None:
        """Append a statement to the current block."""
        self._body.append(build.placed(statement, at))

    def block(self, make: Callable[[], None], *, nests: bool = False) -> list[ast.stmt]:
        """Return the statements that `make` emits. `nests`: they stand in a loop or a try."""
        outer, self._body = self._body, []
        self._blocks += nests
        make()
        self._blocks -= nests
        inner, self._body = self._body, outer
        return inner

    def enclosed(self, at: int, make: Callable[[], ast.expr]) -> ast.expr:
        """Return what `make` returns; past `BLOCKS_MAX` its statements go to an inner function."""
        if self._blocks < BLOCKS_MAX:
            return make()
        blocks, self._blocks = self._blocks, 0
        results: list[ast.expr] = []
        body = self.block(lambda: results.append(make()))
        self._blocks = blocks
        body.append(build.placed(build.give(results[0]), at))
        title = self.new("f")
        self.emit(build.function(title, [], body), at)
        return build.placed(build.call(title), at)

    def call(self, function: Callable[..., Any], *arguments: ast.expr) -> ast.expr:
        """Return a call of one of our functions."""
        return build.call(self.share(function), *arguments)

    def share(self, value: Any) -> str:
        """Return the name by which generated code reaches a value of ours."""
        for title, known in self.globals.items():
            if known is value:
                return title
        title = self.new("k")
        self.globals[title] = value
        return title

    def budget(self) -> ast.expr:
        """Return the evaluation's budget, as an argument."""
        self._spends = True
        return build.name(BUDGET)

    def spend(self, steps: int, at: int) -> None:
        """Emit that `steps` are taken."""
        left = build.item(self.budget(), build.constant(0))
        over = build.statement(build.placed(self.call(operators.over_steps), at))
        self.emit(build.spend(BUDGET, steps), at)
        self.emit(build.when(build.compare(left, "<", build.constant(0)), [over]), at)

    def simple(self, piece: Piece, at: int) -> Piece:
        """Return the piece as something that may be written twice."""
        return piece if piece.simple else Piece(build.name(self.named(piece, at)), piece.type)

    def named(self, piece: Piece, at: int) -> str:
        """Return the variable that holds the piece's value."""
        if isinstance(piece.python, ast.Name):
            return piece.python.id
        target = self.new()
        self.emit(build.assign(target, piece.python), at)
        return target
