"""Fields of node models: what a user writes as text becomes a compiled expression or value.

In: YAML values. Out: `Expression` and `Value` of `pipeline.expression`, ready to be called with a
scope. A fault in an expression is a `FieldFault`, which keeps its place for `parse.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from pipeline.expression import (
    Expression,
    ExpressionFault,
    Roots,
    Value,
    compile_expression,
    compile_value,
)

NAMES: Roots = {
    "attributes": {"client": "map", "shared": "map", "server": "map"},
    "changed": "list",
    "device": dict.fromkeys(
        ("name", "tenant", "integration", "type", "kind", "dev_eui", "customer", "group"), "string"
    ),
    "message": {
        "id": "string",
        "type": "string",
        "time": "timestamp",
        "received": "timestamp",
        "f_port": "dyn",
        "f_cnt": "dyn",
        "confirmed": "bool",
        "payload": "dyn",
    },
    "metadata": "map",
    "now": "timestamp",
    "previous": "map",
    "relations": {"to": "map", "from": "map"},
    "telemetry": "map",
}
"""What expressions of rule chains may speak of, as `message.Scope` gives it."""

RESERVED = frozenset({"stop", "then", "otherwise", "failure"})
"""Words that name no node: the end of the way, and outlets."""

_NAME_LENGTH_MAX = 64


class FieldFault(ValueError):  # noqa: N818 - as `errors.Fault` and `ExpressionFault`
    """A value that cannot be used: at `path` inside the field, `offset` characters into it.

    `more` are further faults of the same field.
    """

    def __init__(
        self,
        message: str,
        *,
        path: tuple[str | int, ...] = (),
        suggestion: str = "",
        offset: int | None = None,
        more: Sequence[FieldFault] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.more = more
        self.path = path
        self.suggestion = suggestion
        self.offset = offset


def _from(fault: ExpressionFault) -> FieldFault:
    return FieldFault(
        fault.message,
        path=fault.path,
        suggestion=fault.suggestion,
        offset=fault.offset,
    )


def _condition(value: Any) -> Expression:
    if not isinstance(value, str):
        raise FieldFault("must be text: an expression like `telemetry.temperature > 30`")
    try:
        expression = compile_expression(value, names=NAMES)
    except ExpressionFault as fault:
        raise _from(fault) from fault
    if expression.type not in ("bool", "dyn"):
        raise FieldFault(
            f"gives {_a(expression.type)}; it must be true or false",
            suggestion="compare it with something",
            offset=0,
        )
    return expression


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _template(value: Any) -> Value:
    try:
        return compile_value(value, names=NAMES)
    except ExpressionFault as fault:
        first = _from(fault)
        first.more = [one for one in _faults_in(value, ()) if one.path != first.path]
        raise first from fault


def _faults_in(value: Any, path: tuple[str | int, ...]) -> Iterator[FieldFault]:
    """Yield the fault of each text in a value, since compiling it whole ends at the first."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _faults_in(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _faults_in(item, (*path, number))
    else:
        try:
            compile_value(value, names=NAMES)
        except ExpressionFault as fault:
            yield _from(fault.moved(path, 0))


def template_text(value: Any) -> Value:
    """Return compiled text. FieldFault: what is wrong with it, and where."""
    if not isinstance(value, str):
        raise FieldFault("must be text; `${ … }` in it holds an expression")
    return _template(value)


def _template_map(value: Any) -> Value:
    if not isinstance(value, dict):
        raise FieldFault("must be a mapping (`key: value`)")
    for key in value:
        if not isinstance(key, str) or not key:
            raise FieldFault(f"the key `{key}` must be text", path=(key,), suggestion="quote it")
    return _template(value)


def _template_values(value: Any) -> Value:
    if isinstance(value, str) and value.startswith("${"):
        return _template(value)
    return _template_map(value)


def _bytes_template(value: Any) -> Expression | Value:
    """Return an Expression for text that is one `${ … }` (it may give bytes), else a Value."""
    if isinstance(value, str) and value.startswith("${") and value.endswith("}"):
        try:
            return compile_expression(value[2:-1], names=NAMES)
        except ExpressionFault:
            return template_text(value)  # several `${ … }`, or the same fault at its right place
    return template_text(value)


def _whole_number_template(low: int, high: int) -> Callable[[Any], Value]:
    def check(value: Any) -> Value:
        if isinstance(value, str) and "${" in value:
            return _template(value)
        if type(value) is not int or not low <= value <= high:
            raise FieldFault(f"must be a whole number from {low} to {high}, or `${{ … }}`")
        return _template(value)

    return check


def _node_name(value: str) -> str:
    if value in RESERVED:
        raise FieldFault(f"`{value}` has a meaning of its own; give the node another name")
    if (
        not value.strip()
        or len(value) > _NAME_LENGTH_MAX
        or "/" in value
        or not value.isprintable()
    ):
        raise FieldFault(f"must be 1 to {_NAME_LENGTH_MAX} printable characters without `/`")
    return value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_EXPRESSION_SCHEMA = {"type": "string", "format": "cel", "description": "An expression (CEL)."}
_TEXT_SCHEMA = {"type": "string", "description": "Text; `${ … }` in it holds an expression."}

Condition = Annotated[Expression, PlainValidator(_condition), WithJsonSchema(_EXPRESSION_SCHEMA)]
"""An expression that is true or false."""

Template = Annotated[Value, PlainValidator(_template), WithJsonSchema({})]
"""Any JSON value; strings in it may hold `${ … }`."""

TemplateText = Annotated[Value, PlainValidator(template_text), WithJsonSchema(_TEXT_SCHEMA)]
TemplateMap = Annotated[Value, PlainValidator(_template_map), WithJsonSchema({"type": "object"})]
TemplateValues = Annotated[
    Value, PlainValidator(_template_values), WithJsonSchema({"type": ["object", "string"]})
]
"""A mapping with `${ … }` in it, or one expression, which may give anything."""
TemplatePort = Annotated[
    Value,
    PlainValidator(_whole_number_template(0, 255)),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 0, "maximum": 255}),
]
BytesTemplate = Annotated[
    Expression | Value, PlainValidator(_bytes_template), WithJsonSchema(_TEXT_SCHEMA)
]
"""Hex or base64 text, or an expression that gives bytes, a list of numbers, or such text."""

NodeName = Annotated[str, AfterValidator(_node_name)]
Target = Annotated[str, Field(min_length=1, max_length=_NAME_LENGTH_MAX)]
"""Where an outlet leads: a node's name, or `stop`."""

Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One name or a list of names."""
