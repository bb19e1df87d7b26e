"""An error of generated code in, an `ExpressionError` that a user understands out.

Only what failed comes here, so it may take its time: generated code carries no texts for errors;
the line number of each instruction is its offset in the source plus one.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from pipeline.errors import ExpressionError
from pipeline.expression.fault import did_you_mean
from pipeline.expression.kinds import Failure, OverLimit, kind_name
from pipeline.expression.operators import KEYS_LOOKED_AT_MAX, key_text, known_keys
from pipeline.expression.tree import Constant, Index, Name, Node, Select, children

FILENAME = "<expression>"
# What generated code may raise that `&&` and `||` absorb. Python's own come from a missing key, a
# value that has no keys, an index, and an int that no double can hold.
ERRORS = (Failure, KeyError, TypeError, IndexError, OverflowError)
_UNKNOWN = object()


def note(error: Exception) -> Failure:
    """Return an absorbed error without its traceback, which would keep its frame alive."""
    offset = _offset(error)
    if isinstance(error, Failure):
        return Failure(error.message, offset, error.python)
    return Failure("", offset, type(error))


def explain(
    error: Exception, source: str, parsed: Node, scope: Mapping[str, Any]
) -> ExpressionError:
    """Return what to tell the user of an error that generated code raised."""
    if isinstance(error, OverLimit):
        return ExpressionError(error.message, expression=source, limit=error.limit)
    if isinstance(error, RecursionError):
        message = "the values are nested too deep"
        return ExpressionError(message, expression=source, limit="nesting_max")
    failure = note(error)
    message = failure.message
    if not message:
        message = _message(failure, _node_at(parsed, failure.offset), scope)
    detail: dict[str, Any] = {"expression": source}
    if failure.offset >= 0:
        detail["offset"] = failure.offset
    return ExpressionError(message, **detail)


def _offset(error: Exception) -> int:
    """Return where in the source an error arose, -1 where that is not known."""
    if isinstance(error, Failure) and error.offset >= 0:
        return error.offset
    offset = -1
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == FILENAME:
            offset = step.tb_lineno - 1
        step = step.tb_next
    return offset


def _node_at(parsed: Node, offset: int) -> Node | None:
    waiting = [parsed]
    while waiting:
        node = waiting.pop()
        if node.at == offset:
            return node
        waiting.extend(children(node))
    return None


def _message(failure: Failure, node: Node | None, scope: Mapping[str, Any]) -> str:
    """Say what Python's own error means at this node."""
    if failure.python is OverflowError:
        return "a number is too large for a double"
    if isinstance(node, Name):
        return f"there is no `{node.name}` here{known_keys(scope)}"
    if not isinstance(node, Select | Index):
        return "the values do not fit the operation"
    key = node.field if isinstance(node, Select) else _value(node.index, scope)
    container = _value(node.operand, scope)
    where = _path(node.operand)
    if failure.python is IndexError:
        count = f"; it has {len(container)} elements" if isinstance(container, list) else ""
        return f"index {key} is outside of the list{count}"
    if failure.python is KeyError:
        if not isinstance(container, Mapping):
            return f"no such key: {key_text(key)}"
        names = map(key_text, islice(container, KEYS_LOOKED_AT_MAX))
        hint = did_you_mean(key_text(key), names)
        return f"no such key: {key_text(key)}{known_keys(container)}{f' ({hint})' if hint else ''}"
    what = "the value" if container is _UNKNOWN else f"{where} is {kind_name(container)}; it"
    return f"{what} has no key {key_text(key)}"


def _value(node: Node, scope: Mapping[str, Any]) -> Any:
    """Return the value of a path from the scope, `_UNKNOWN` for anything else."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Name):
        return scope.get(node.name, _UNKNOWN)
    if isinstance(node, Select | Index):
        container = _value(node.operand, scope)
        key = node.field if isinstance(node, Select) else _value(node.index, scope)
        try:
            return container[key]
        except (LookupError, TypeError):
            return _UNKNOWN
    return _UNKNOWN


def _path(node: Node) -> str:
    if isinstance(node, Select):
        return f"{_path(node.operand)}.{node.field}"
    if isinstance(node, Name):
        return node.name
    return "it"
