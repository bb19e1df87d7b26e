"""A value from a YAML file in, its strings perhaps holding `${ … }`; a function of a scope out.

A string that is exactly one `${ … }` becomes whatever the expression gives, as JSON. In any other
string each `${ … }` is replaced by its text. `$${` stands for `${`. Keys of maps may hold
templates too; they give strings.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from math import isfinite, isnan
from typing import Any

import orjson

from pipeline.errors import ExpressionError
from pipeline.expression.checks import Roots
from pipeline.expression.conversions import to_string
from pipeline.expression.expression import RAISED, Expression, compile_expression
from pipeline.expression.fault import LIMITS, ExpressionFault, Limits, PathPart
from pipeline.expression.kinds import Failure, OverLimit
from pipeline.expression.lexer import tokens
from pipeline.expression.times import format_duration, format_timestamp

Scope = Mapping[str, Any]
Compute = Callable[[Scope], Any]
Path = tuple[PathPart, ...]

OPENING = "${"
_DEPTH_MAX = 200  # as deep as the YAML of a rules folder may nest


class Value:
    """A compiled value; immutable, and safe to call from several threads.

    `constant`: it holds no expression; each call returns the same object, which the caller must
    not change. `names` are the roots that its expressions read from a scope; `expressions` are
    they, in the order of the value.
    """

    __slots__ = ("_compute", "constant", "expressions", "names")

    def __init__(
        self,
        compute: Compute,
        names: frozenset[str],
        *,
        constant: bool,
        expressions: tuple[Expression, ...] = (),
    ) -> None:
        self._compute = compute
        self.names = names
        self.expressions = expressions
        self.constant = constant

    def __call__(self, scope: Scope) -> Any:
        """Return the value for a scope: JSON.

        Timestamps become RFC 3339, durations `3.5s`, bytes base64, numbers that JSON lacks their
        names (`"NaN"`, `"Infinity"`); a path into the scope gives what stands there, not a copy.
        Raises `ExpressionError` as an `Expression` does.
        """
        return self._compute(scope)


def compile_value(value: Any, *, names: Roots | None = None, limits: Limits = LIMITS) -> Value:
    """Return the value with its templates compiled. `names`: as for an expression.

    Raises `ExpressionFault` with the `path` to the string and the offset inside of it.
    """
    compiler = _Compiler(names, limits)
    compute = compiler.compute(value, ())
    if compute is None:
        literal = compiler.literal(value)
        return Value(lambda _scope: literal, frozenset(), constant=True)
    return Value(
        compute,
        frozenset(compiler.names),
        constant=False,
        expressions=tuple(compiler.expressions),
    )


class _Compiler:
    """Compiles one value; None as a function means that the value is constant."""

    def __init__(self, allowed: Roots | None, limits: Limits) -> None:
        self._allowed = allowed
        self._limits = limits
        self.names: set[str] = set()
        self.expressions: list[Expression] = []

    def compute(self, value: Any, path: Path) -> Compute | None:
        if len(path) > _DEPTH_MAX:
            raise ExpressionFault("the value is nested too deep", 0, "", path)
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, Mapping):
            return self._map(value, path)
        if isinstance(value, list | tuple):
            return self._list(value, path)
        return None

    def literal(self, value: Any) -> Any:
        """Return a constant as it leaves: its escapes read, itself where there are none."""
        if isinstance(value, str):
            return value.replace(f"${OPENING}", OPENING)
        if isinstance(value, Mapping):
            return {self.literal(key): self.literal(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.literal(element) for element in value]
        return value

    # Lists and maps: a copy of the constant parts, the others computed into it

    def _list(self, value: list[Any] | tuple[Any, ...], path: Path) -> Compute | None:
        found = [(at, self.compute(element, (*path, at))) for at, element in enumerate(value)]
        moving = [(at, compute) for at, compute in found if compute is not None]
        if not moving:
            return None
        fixed = [None if compute is not None else self.literal(value[at]) for at, compute in found]

        def compute_list(scope: Scope) -> list[Any]:
            made = fixed.copy()
            for at, compute in moving:
                made[at] = compute(scope)
            return made

        return compute_list

    def _map(self, value: Mapping[Any, Any], path: Path) -> Compute | None:
        keys = {key: self._key(key, path) for key in value}
        found = {key: self.compute(entry, (*path, key)) for key, entry in value.items()}
        if any(compute is not None for compute in keys.values()):
            return self._map_of_keys(value, keys, found)
        moving = [
            (self.literal(key), compute) for key, compute in found.items() if compute is not None
        ]
        if not moving:
            return None
        fixed = {
            self.literal(key): None if found[key] else self.literal(entry)
            for key, entry in value.items()
        }

        def compute_map(scope: Scope) -> dict[str, Any]:
            made = fixed.copy()
            for key, compute in moving:
                made[key] = compute(scope)
            return made

        return compute_map

    def _map_of_keys(
        self,
        value: Mapping[Any, Any],
        keys: Mapping[Any, Compute | None],
        found: Mapping[Any, Compute | None],
    ) -> Compute:
        parts = [
            (keys[key] or _fixed(self.literal(key)), found[key] or _fixed(self.literal(entry)))
            for key, entry in value.items()
        ]

        def compute_map(scope: Scope) -> dict[str, Any]:
            made: dict[str, Any] = {}
            for key_of, entry_of in parts:
                key = key_of(scope)
                if key in made:
                    raise ExpressionError(f"two templates give the same key {key!r}", key=key)
                made[key] = entry_of(scope)
            return made

        return compute_map

    def _key(self, key: Any, path: Path) -> Compute | None:
        if not isinstance(key, str):
            return None
        parts = self._parts(key, (*path, key))
        return self._joined(parts) if any(isinstance(part, Expression) for part in parts) else None

    # Strings

    def _text(self, text: str, path: Path) -> Compute | None:
        parts = self._parts(text, path)
        if len(parts) == 1 and isinstance(parts[0], Expression):
            return _json_of(parts[0])
        return self._joined(parts) if any(isinstance(part, Expression) for part in parts) else None

    def _joined(self, parts: list[str | Expression]) -> Compute:
        size_max = self._limits.size_max
        functions = [part if isinstance(part, str) else _text_of(part, size_max) for part in parts]

        def compute_text(scope: Scope) -> str:
            made = "".join([part if isinstance(part, str) else part(scope) for part in functions])
            if len(made) > size_max:
                raise ExpressionError("the text grows too large", limit="size_max")
            return made

        return compute_text

    def _parts(self, text: str, path: Path) -> list[str | Expression]:
        """Return a string as its fixed texts and its expressions, in order."""
        parts: list[str | Expression] = []
        done = 0
        while (at := text.find(OPENING, done)) >= 0:
            if at > done and text[at - 1] == "$":
                parts.append(text[done : at - 1] + OPENING)
                done = at + len(OPENING)
                continue
            if at > done:
                parts.append(text[done:at])
            expression, done = self._template(text, at, path)
            parts.append(expression)
        if done < len(text):
            parts.append(text[done:])
        return parts

    def _template(self, text: str, at: int, path: Path) -> tuple[Expression, int]:
        """Compile the template that opens at `at`; return it and the offset behind it."""
        start = at + len(OPENING)
        for secret in ("env:", "file:"):
            if text.startswith(secret, start):
                raise ExpressionFault(
                    f"a secret ${{{secret}…}} cannot stand here",
                    at,
                    "secrets belong into integrations and sinks",
                    path,
                )
        try:
            end = _closing(text, start)
        except ExpressionFault as fault:
            raise fault.moved(path, 0) from None
        if end < 0:
            hint = "to write these characters as they are: $${"
            raise ExpressionFault("the template that opens here has no closing }", at, hint, path)
        try:
            expression = compile_expression(
                text[start:end], names=self._allowed, limits=self._limits
            )
        except ExpressionFault as fault:
            raise fault.moved(path, start) from None
        self.names |= expression.names
        self.expressions.append(expression)
        return expression, end + 1


def _closing(text: str, start: int) -> int:
    """Return where the template's own closing brace stands, or -1.

    Braces of maps, and those inside of strings and comments, are not it; the lexer knows.
    """
    depth = 0
    for token in tokens(text, start):
        if token.kind == "{":
            depth += 1
        elif token.kind == "}":
            if depth == 0:
                return token.at
            depth -= 1
    return -1


def _fixed(value: Any) -> Compute:
    return lambda _scope: value


# JSON's own types, which most results have; a double is looked at, for JSON has no infinity.
_PLAIN = frozenset({str, int, bool, type(None)})
_INFINITE = float("inf")


def _json_of(expression: Expression) -> Compute:
    run, is_path = expression.run, expression.is_path

    def compute_json(scope: Scope) -> Any:
        try:
            value = run(scope)
        except RAISED as error:
            raise expression.explained(error, scope) from None
        kind = type(value)
        if kind in _PLAIN or (is_path and (kind is dict or kind is list)):
            return value
        if kind is float and -_INFINITE < value < _INFINITE:
            return value
        return _converted(value, expression)

    return compute_json


def _converted(value: Any, expression: Expression) -> Any:
    try:
        return to_json(value)
    except Failure as failure:
        raise ExpressionError(failure.message, expression=expression.source) from None
    except RecursionError:
        raise ExpressionError(
            "the result is nested too deep", expression=expression.source, limit="nesting_max"
        ) from None


def to_json(value: Any) -> Any:
    """Return a result as JSON; lists and maps are copied. Raises `Failure` for what is no JSON."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if isfinite(value) else _odd_double(value)
    if kind is datetime:
        return format_timestamp(value)
    if kind is timedelta:
        return format_duration(value)
    if kind is bytes:
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return {_key_text(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(element) for element in value]
    raise Failure(f"the result is a {kind.__name__}, which is no JSON")


def _odd_double(value: float) -> str:
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key_text(key: Any) -> str:
    if type(key) is bool:
        return "true" if key else "false"
    return str(key)


def _text_of(expression: Expression, size_max: int) -> Callable[[Scope], str]:
    """Return the function that gives an expression's text inside of a longer one."""

    def compute_text(scope: Scope) -> str:
        value = expression(scope)
        if type(value) is str:
            return value
        if value is None:
            return "null"
        try:
            if isinstance(value, Mapping | list | tuple):
                return orjson.dumps(_converted(value, expression)).decode()
            return to_string(value, [0, size_max])
        except (Failure, OverLimit, TypeError) as error:
            raise ExpressionError(str(error), expression=expression.source) from None

    return compute_text
