"""Source text in, an `Expression` out that computes values from a scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

from pipeline.errors import ExpressionError
from pipeline.expression import code_access, code_calls, code_logic, code_operators, tree
from pipeline.expression.checks import Roots
from pipeline.expression.explain import ERRORS, FILENAME, explain, note
from pipeline.expression.fault import LIMITS, ExpressionFault, Limits
from pipeline.expression.generator import Generator
from pipeline.expression.kinds import OverLimit, kind_name
from pipeline.expression.parser import parse

_MAKERS: dict[type[tree.Node], Callable[[Generator, Any], Any]] = {
    tree.Constant: code_access.constant_of,
    tree.Name: code_access.name_of,
    tree.Select: code_access.select_of,
    tree.Index: code_access.index_of,
    tree.ListOf: code_access.list_of,
    tree.MapOf: code_access.map_of,
    tree.Unary: code_operators.unary_of,
    tree.Binary: code_operators.binary_of,
    tree.Logic: code_logic.logic_of,
    tree.Condition: code_logic.condition_of,
    tree.Macro: code_logic.macro_of,
    tree.Call: code_calls.call_of,
}
_PATH = (tree.Name, tree.Select, tree.Index)
RAISED = (*ERRORS, OverLimit, RecursionError)


class Expression:
    """A compiled expression; immutable, and safe to call from several threads.

    `source` is its text, `names` are the roots that it reads from a scope. `is_path`: it only
    names a place in the scope (`a.b["c"]`), so its value is a part of the scope. `type` is what its
    value is known to be, in CEL's words; `number` an int, uint or double, `dyn` anything. `run`
    is a call without its errors explained, for those who compute many values.
    """

    __slots__ = ("_tree", "is_path", "names", "run", "source", "type")

    def __init__(
        self,
        source: str,
        names: frozenset[str],
        run: Callable[[Mapping[str, Any]], Any],
        parsed: tree.Node,
        gives: str = "dyn",
    ) -> None:
        self.source = source
        self.names = names
        self.type = gives
        self.run = run
        self._tree = parsed
        self.is_path = isinstance(parsed, _PATH) and _only_path(parsed)

    def __call__(self, scope: Mapping[str, Any]) -> Any:
        """Return the value for a scope: JSON, bytes, datetime (UTC) or timedelta.

        Parts of the scope are returned as they are, not copied. Raises `ExpressionError` with
        `detail` of expression, offset where known, and limit where one was reached.
        """
        try:
            return self.run(scope)
        except RAISED as error:
            raise self.explained(error, scope) from None

    def explained(self, error: Exception, scope: Mapping[str, Any]) -> ExpressionError:
        """Return what `run` raised, one of RAISED, as a call raises it."""
        return explain(error, self.source, self._tree, scope)

    def test(self, scope: Mapping[str, Any]) -> bool:
        """Return the value, which must be a bool; raises `ExpressionError` as a call does."""
        try:
            value = self.run(scope)
        except RAISED as error:
            raise self.explained(error, scope) from None
        if value is True or value is False:
            return value
        raise ExpressionError(
            f"the expression gives {kind_name(value)}; a test must give a bool",
            expression=self.source,
            offset=self._tree.at,
        )

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"


def _only_path(node: tree.Node) -> bool:
    """Return whether all nodes only lead to a place; types' names do not count: they are text."""
    return isinstance(node, (*_PATH, tree.Constant)) and all(map(_only_path, tree.children(node)))


def compile_expression(
    source: str, *, names: Roots | None = None, limits: Limits = LIMITS
) -> Expression:
    """Return the expression of a text. `names`: the roots it may read, perhaps with what is known
    of each, which every scope must then hold to; None: any.

    Raises `ExpressionFault` for what no message can make right: syntax, unknown names and
    functions, wrong counts of arguments, types that never fit, a size over `limits`.
    """
    try:
        parsed = parse(source, limits)
        generator = Generator(_MAKERS, names, limits)
        module = generator.module(parsed)
        code = compile(module, FILENAME, "exec", dont_inherit=True)
    except RecursionError:
        raise ExpressionFault("the expression is nested too deep") from None
    body = next(each for each in code.co_consts if isinstance(each, CodeType))
    run = FunctionType(
        body, {**generator.globals, code_logic.ERRORS: ERRORS, code_logic.NOTE: note}
    )
    return Expression(source, frozenset(generator.names), run, parsed, generator.result)
