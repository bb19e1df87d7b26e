"""Source text in, tree out: the grammar of the CEL language definition, macros included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.expression.fault import ExpressionFault, Limits
from pipeline.expression.lexer import RESERVED, Token, tokens
from pipeline.expression.literals import in_range
from pipeline.expression.tree import (
    Binary,
    Call,
    Condition,
    Constant,
    Index,
    ListOf,
    Logic,
    Macro,
    MapOf,
    Name,
    Node,
    Select,
    Unary,
    qualified,
)

_RANK = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("<", "<=", ">=", ">", "==", "!=", "in"), 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys("*/%", 5),
}
MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "map": (2, 3), "filter": (2,)}
_WORDS = {"and": "write `&&`", "or": "write `||`", "not": "write `!`", "is": "write `==`"}

_N = TypeVar("_N", bound=Node)


def parse(source: str, limits: Limits) -> Node:
    """Return the tree of an expression, or raise `ExpressionFault`."""
    if len(source) > limits.source_chars_max:
        raise ExpressionFault(
            f"the expression has {len(source)} characters; at most {limits.source_chars_max} may be"
        )
    parser = _Parser(tokens(source), limits.nesting_max)
    return parser.whole()


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, stream: Iterator[Token], nesting_max: int) -> None:
        self._stream = stream
        self._token = next(stream)
        self._nesting_max = nesting_max
        self._depth = 0

    def whole(self) -> Node:
        if self._token.kind == "end":
            raise ExpressionFault("an expression is missing here", self._token.at)
        node = self._expression()
        if self._token.kind != "end":
            raise self._unexpected("the expression is complete before it")
        return node

    # Tokens

    def _take(self) -> Token:
        token = self._token
        if token.kind != "end":
            self._token = next(self._stream)
        return token

    def _skip(self, kind: str) -> bool:
        if self._token.kind != kind:
            return False
        self._take()
        return True

    def _expect(self, kind: str, why: str) -> Token:
        if self._token.kind != kind:
            raise self._unexpected(f"expected `{kind}` {why}")
        return self._take()

    def _unexpected(self, wanted: str) -> ExpressionFault:
        token = self._token
        if token.kind == "end":
            return ExpressionFault(f"the expression ends too early: {wanted}", token.at)
        shown = token.value if token.kind != "literal" else repr(token.value)
        return ExpressionFault(
            f"unexpected `{shown}`: {wanted}", token.at, _WORDS.get(str(token.value), "")
        )

    def _make(self, cls: type[_N], at: int, /, **parts: Any) -> _N:
        """Make a node and measure it."""
        height = size = 0
        for part in parts.values():
            for below in part if isinstance(part, tuple) else (part,):
                if isinstance(below, Node):
                    height = max(height, below.height)
                    size += below.size
        if height >= self._nesting_max:
            raise self._too_deep(at)
        return cls(at=at, height=height + 1, size=size + 1, **parts)

    def _too_deep(self, at: int) -> ExpressionFault:
        return ExpressionFault(
            f"the expression is nested deeper than {self._nesting_max}",
            at,
            "split it over several nodes of the chain",
        )

    # Grammar

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > self._nesting_max:
            raise self._too_deep(self._token.at)
        node = self._binary(0)
        if self._token.kind == "?":
            at = self._take().at
            yes = self._binary(0)
            self._expect(":", "of the condition `test ? yes : no`")
            node = self._make(Condition, at, test=node, yes=yes, no=self._expression())
        self._depth -= 1
        return node

    def _binary(self, floor: int) -> Node:
        """Read operators that bind tighter than `floor`; equal ones group to the left."""
        left = self._unary()
        while (rank := _RANK.get(self._token.kind, 0)) > floor:
            token = self._take()
            right = self._binary(rank)
            if token.kind in ("&&", "||"):
                left = self._logic(token, left, right)
            else:
                left = self._make(Binary, token.at, sign=token.kind, left=left, right=right)
        return left

    def _logic(self, token: Token, left: Node, right: Node) -> Node:
        """Join rows of the same operator: they are commutative, errors included."""
        operands: list[Node] = []
        for side in (left, right):
            same = isinstance(side, Logic) and side.sign == token.kind
            operands.extend(side.operands if same else (side,))  # type: ignore[attr-defined]
        return self._make(Logic, token.at, sign=token.kind, operands=tuple(operands))

    def _unary(self) -> Node:
        signs: list[Token] = []
        while self._token.kind in ("-", "!"):
            if signs and signs[-1].kind != self._token.kind:
                raise self._unexpected("`-` and `!` do not mix; use brackets")
            signs.append(self._take())
            if len(signs) > self._nesting_max:
                raise self._too_deep(signs[0].at)
        negative = bool(signs) and signs[-1].kind == "-" and self._token.type in ("int", "double")
        node = self._member(signs.pop() if negative else None)
        for token in reversed(signs):
            node = self._make(Unary, token.at, sign=token.kind, operand=node)
        return node

    def _member(self, minus: Token | None) -> Node:
        node = self._primary(minus)
        while True:
            if self._token.kind == ".":
                self._take()
                node = self._selected(node)
            elif self._token.kind == "[":
                at = self._take().at
                self._refuse_optional("[?")
                index = self._expression()
                self._expect("]", "of the index")
                node = self._make(Index, at, operand=node, index=index)
            elif self._token.kind == "{" and qualified(node):
                raise ExpressionFault(
                    f"messages such as {qualified(node)}{{…}} are not supported",
                    self._token.at,
                    'write a map: {"field": value}',
                )
            else:
                return node

    def _selected(self, operand: Node) -> Node:
        self._refuse_optional(".?")
        token = self._token
        if token.kind not in ("word", "quoted"):
            hint = 'write ["…"] for such a key' if token.kind in ("literal", "in") else ""
            fault = self._unexpected("expected the name of a field after `.`")
            raise ExpressionFault(fault.message, token.at, fault.suggestion or hint)
        self._take()
        if self._token.kind != "(" or token.kind == "quoted":
            return self._make(Select, token.at, operand=operand, field=token.value)
        arguments = self._arguments()
        if token.value in MACROS:
            return self._macro(token, operand, arguments)
        return self._make(
            Call, token.at, name=token.value, receiver=operand, arguments=tuple(arguments)
        )

    def _refuse_optional(self, sign: str) -> None:
        if self._token.kind == "?":
            raise ExpressionFault(
                f"optional access `{sign}` is not part of standard CEL",
                self._token.at,
                "ask first: has(a.b) ? a.b : other",
            )

    def _primary(self, minus: Token | None) -> Node:
        token = self._token
        if token.kind == "literal":
            return self._literal(self._take(), minus)
        if token.kind == "(":
            self._take()
            node = self._expression()
            self._expect(")", "that closes the bracket")
            return node
        if token.kind == "[":
            return self._list()
        if token.kind == "{":
            return self._map()
        if token.kind in (".", "word"):
            return self._name(root=self._skip("."))
        raise self._unexpected("expected a value")

    def _literal(self, token: Token, minus: Token | None) -> Node:
        value, at = token.value, token.at if minus is None else minus.at
        negative, whole = minus is not None, token.type in ("int", "uint")
        if whole and not in_range(value, token.type, negative=negative):
            raise ExpressionFault(
                f"the number does not fit into 64 bits ({token.type})",
                at,
                "write it as a double: 1e19",
            )
        if negative:
            value = -value
        return Constant(at=at, value=value, type=token.type)

    def _name(self, *, root: bool) -> Node:
        if self._token.kind != "word":
            raise self._unexpected("expected a name")
        token = self._take()
        if token.value in RESERVED:
            raise ExpressionFault(f"`{token.value}` is a reserved word and no name", token.at)
        if self._token.kind != "(":
            return Name(at=token.at, name=token.value, root=root)
        arguments = self._arguments()
        if token.value == "has":
            return self._has(token, arguments)
        return self._make(
            Call, token.at, name=token.value, receiver=None, arguments=tuple(arguments)
        )

    def _arguments(self) -> list[Node]:
        self._take()
        return self._row(")", "of the arguments", trailing=False)

    def _row(self, closing: str, why: str, *, trailing: bool) -> list[Node]:
        """Read expressions up to the closing sign."""
        row: list[Node] = []
        if trailing and self._skip(","):
            self._expect(closing, why)
            return row
        while not (self._token.kind == closing and (trailing or not row)):
            row.append(self._expression())
            if not self._skip(","):
                break
        self._expect(closing, why)
        return row

    def _list(self) -> Node:
        at = self._take().at
        return self._make(ListOf, at, items=tuple(self._row("]", "of the list", trailing=True)))

    def _map(self) -> Node:
        at = self._take().at
        keys: list[Node] = []
        values: list[Node] = []
        lone = self._skip(",")
        while not lone and self._token.kind != "}":
            keys.append(self._expression())
            self._expect(":", "between key and value of the map")
            values.append(self._expression())
            if not self._skip(","):
                break
        self._expect("}", "of the map")
        return self._make(MapOf, at, keys=tuple(keys), values=tuple(values))

    # Macros

    def _has(self, token: Token, arguments: list[Node]) -> Node:
        asked = arguments[0] if len(arguments) == 1 else None
        if not isinstance(asked, Select) or asked.test:
            hint = 'for such a key write "key" in map' if isinstance(asked, Index) else ""
            raise ExpressionFault("has() asks for one field: has(a.b)", token.at, hint)
        parts = {field.name: getattr(asked, field.name) for field in fields(asked)}
        return Select(**{**parts, "test": True})

    def _macro(self, token: Token, over: Node, arguments: list[Node]) -> Node:
        name = token.value
        if len(arguments) not in MACROS[name]:
            usage = "map(x, value) or map(x, test, value)" if name == "map" else f"{name}(x, test)"
            raise ExpressionFault(f"{name}() is written list.{usage}", token.at)
        variable, *rest = arguments
        if not isinstance(variable, Name) or variable.root:
            raise ExpressionFault(
                f"the first argument of {name}() is a name for each element",
                variable.at,
                f"such as list.{name}(x, …)",
            )
        result = rest.pop() if name == "map" else None
        return self._make(
            Macro,
            token.at,
            name=name,
            over=over,
            variable=variable.name,
            test=rest[0] if rest else None,
            result=result,
        )
