"""The standard functions: their names, what they take and give, and what they do.

The table is read when an expression is compiled; generated code calls the functions directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import re2

from pipeline.expression.conversions import (
    to_bool,
    to_bytes,
    to_double,
    to_duration,
    to_int,
    to_string,
    to_timestamp,
    to_uint,
    type_of,
    wrong,
)
from pipeline.expression.kinds import Budget, Failure, spend_steps
from pipeline.expression.times import DURATION_PARTS, PARTS, part

_NUMBER_TYPES = frozenset({"int", "uint", "double", "number"})
_STRING = frozenset({"string"})
_ANY: frozenset[str] = frozenset()

# A pattern that needs more is refused. RE2's own default is 8 MiB, times the patterns kept.
PATTERN_MEMORY_BYTES_MAX = 2 * 1024 * 1024
PATTERNS_KEPT_MAX = 64


# Texts, lists, maps


def size(value: Any) -> int:
    """`size(x)`: code points, octets, elements or entries."""
    if isinstance(value, str | bytes | list | tuple | Mapping):
        return len(value)
    raise wrong("size", value)


def contains(text: Any, inner: Any, budget: Budget) -> bool:
    """`text.contains(inner)`."""
    if type(text) is str and type(inner) is str:
        spend_steps(budget, len(text) >> 3)
        return inner in text
    raise wrong("contains", text, inner)


def starts_with(text: Any, inner: Any) -> bool:
    """`text.startsWith(inner)`."""
    if type(text) is str and type(inner) is str:
        return text.startswith(inner)
    raise wrong("startsWith", text, inner)


def ends_with(text: Any, inner: Any) -> bool:
    """`text.endsWith(inner)`."""
    if type(text) is str and type(inner) is str:
        return text.endswith(inner)
    raise wrong("endsWith", text, inner)


# Regular expressions: RE2, whose time is linear in the text whatever the pattern


@lru_cache(maxsize=PATTERNS_KEPT_MAX)
def compile_pattern(pattern: str) -> Any:
    """Return the compiled pattern, or raise `Failure` with what RE2 says of it."""
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        why = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise Failure(f"the pattern is no regular expression of RE2: {why}") from None
    except UnicodeEncodeError:
        raise Failure("the pattern has half a Unicode character") from None


def matches(text: Any, pattern: Any, budget: Budget) -> bool:
    """`text.matches(pattern)`: whether it matches anywhere in the text."""
    if type(text) is not str or type(pattern) is not str:
        raise wrong("matches", text, pattern)
    spend_steps(budget, len(pattern))
    return search(text, compile_pattern(pattern), budget)


def search(text: Any, pattern: Any, budget: Budget) -> bool:
    """`text.matches("…")`, the pattern compiled beforehand."""
    if type(text) is not str:
        raise wrong("matches", text, "")
    spend_steps(budget, len(text) >> 3)
    try:
        return pattern.search(text) is not None
    except UnicodeEncodeError:
        raise Failure("the text has half a Unicode character") from None


@dataclass(frozen=True, slots=True)
class Function:
    """One way to call a function; the receiver counts as the first parameter.

    `takes`: the static types each parameter may have; empty: any. `gives`: the result's type.
    """

    name: str
    member: bool
    takes: tuple[frozenset[str], ...]
    gives: str
    call: Callable[..., Any]
    budget: bool = False


def _standard() -> list[Function]:
    sized = frozenset({"string", "bytes", "list", "map"})
    numbers, text = _NUMBER_TYPES, _STRING
    timestamp, both = frozenset({"timestamp"}), frozenset({"timestamp", "duration"})
    listed = [
        Function("size", False, (sized,), "int", size),
        Function("size", True, (sized,), "int", size),
        Function("contains", True, (text, text), "bool", contains, budget=True),
        Function("startsWith", True, (text, text), "bool", starts_with),
        Function("endsWith", True, (text, text), "bool", ends_with),
        Function("matches", True, (text, text), "bool", matches, budget=True),
        Function("matches", False, (text, text), "bool", matches, budget=True),
        Function("int", False, (numbers | text | timestamp,), "int", to_int),
        Function("uint", False, (numbers | text,), "uint", to_uint),
        Function("double", False, (numbers | text,), "double", to_double),
        Function("bool", False, (text | {"bool"},), "bool", to_bool),
        Function("bytes", False, (text | {"bytes"},), "bytes", to_bytes, budget=True),
        Function(
            "string",
            False,
            (numbers | text | both | {"bool", "bytes"},),
            "string",
            to_string,
            budget=True,
        ),
        Function("timestamp", False, (text | timestamp | {"int"},), "timestamp", to_timestamp),
        Function("duration", False, (text | {"duration"},), "duration", to_duration),
        Function("type", False, (_ANY,), "type", type_of),
        Function("dyn", False, (_ANY,), "dyn", lambda value: value),
    ]
    for name in PARTS:
        first = both if name in DURATION_PARTS else timestamp
        listed.append(Function(name, True, (first,), "int", partial(part, name)))
        listed.append(Function(name, True, (timestamp, text), "int", partial(part, name)))
    return listed


STANDARD = _standard()
FUNCTIONS = {(each.name, each.member, len(each.takes)): each for each in STANDARD}
