"""Pydantic's verdict on what a user wrote → problems, in words that a user understands.

Values are never quoted from pydantic's errors, since they may be secrets; names of keys are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.rulebook.catalogue import Problem, suggest

Model = TypeVar("Model", bound=BaseModel)

_QUOTES = "put it in quotes"
_WORDS = {
    "string_type": "must be text",
    "dict_type": "must be a mapping (`key: value`)",
    "mapping_type": "must be a mapping (`key: value`)",
    "model_type": "must be a mapping (`key: value`)",
    "model_attributes_type": "must be a mapping (`key: value`)",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be `true` or `false`",
    "bool_parsing": "must be `true` or `false`",
    "none_required": "must be empty",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "url_scheme": "must be an address that starts with {expected_schemes}",
    "url_parsing": "must be an address like `https://example.com/path`",
    "url_type": "must be an address like `https://example.com/path`",
    "finite_number": "must be a finite number",
}


def validate(
    model: type[Model], value: Any, path: tuple[str | int, ...] = ()
) -> tuple[Model | None, list[Problem]]:
    """Return the model of `value`, or None and all that is wrong; `path` is where `value` stands.

    An empty document is an empty mapping.
    """
    value = {} if value is None else value
    if not isinstance(value, dict):
        return None, [Problem(path, "must be a mapping (`key: value`)", "", 0)]
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        problems = [
            _problem(details, model, value, path)
            for details in error.errors(include_url=False, include_input=True)
        ]
        return None, _without_echoes(problems)


def _problem(
    details: ErrorDetails, model: type[BaseModel], value: Any, path: tuple[str | int, ...]
) -> Problem:
    location = details["loc"]
    here = (*path, *_descend(value, location))
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = list(_fields_at(model, location[:-1]))
        return Problem(
            here,
            f"unknown key `{location[-1]}`",
            suggest(str(location[-1]), known) or _one_of("the keys here are", known),
        )
    if kind == "missing":
        name = str(location[-1])
        field = _fields_at(model, location[:-1]).get(name)
        return Problem(here, f"`{name}` is missing", (field and field.description) or "")
    if kind in ("literal_error", "enum"):
        return _choice(here, context, details["input"])
    if kind == "value_error":
        error = context.get("error")
        return Problem(here, _sentence(str(error)), "", 0)
    words = _WORDS.get(kind)
    if words is None:
        return Problem(here, _sentence(details["msg"]), "", 0)
    if isinstance(details["input"], str) and kind in ("too_short", "too_long"):  # of a secret
        words = _WORDS[f"string_{kind}"]
    if context.get("min_length") == 1:
        words = "must not be empty"
    hint = ""
    if kind == "string_type" and isinstance(details["input"], int | float):
        hint = _QUOTES
    limits = {name: _plain(limit) for name, limit in context.items()}
    return Problem(here, words.format(**limits), hint, 0)


def _plain(limit: Any) -> str:
    if isinstance(limit, int) or (isinstance(limit, float) and limit.is_integer()):
        return f"{int(limit):,}"
    return str(limit)


def _choice(path: tuple[str | int, ...], context: dict[str, Any], given: Any) -> Problem:
    allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    if not allowed:  # numbers
        return Problem(path, f"must be {context.get('expected')}", "", 0)
    hint = suggest(given, allowed) if isinstance(given, str) else ""
    return Problem(path, _one_of("must be one of", allowed), hint, 0)


def _one_of(start: str, names: Sequence[str]) -> str:
    return f"{start} {', '.join(f'`{name}`' for name in names)}" if names else ""


def _sentence(message: str) -> str:
    text = re.sub(r"^[A-Z][A-Za-z]* should ", "must ", message.removeprefix("Value error, "))
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _descend(value: Any, location: Sequence[int | str]) -> list[str | int]:
    """Return the part of a location that is in the document.

    Pydantic's locations hold names of union members and validators, which are in no document.
    """
    inner: list[str | int] = []
    for part in location:
        in_mapping = isinstance(value, dict) and part in value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_mapping or in_list:
            value = value[part]
            inner.append(part)
    return inner


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> dict[str, FieldInfo]:
    """Return the fields that a mapping at a location may have, over all members of unions."""
    models = [model]
    for part in location:
        deeper = [
            found
            for each in models
            for name, field in _fields(each)
            if part == name
            for found in _models_in(field.annotation)
        ]
        models = deeper or models  # a union's tag or a list's index: the same models
    return {name: field for each in models for name, field in _fields(each)}


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield field.alias or name, field


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType, list, tuple, dict, set):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _without_echoes(problems: list[Problem]) -> list[Problem]:
    """Drop what other members of a union said of the same place, but for the first."""
    seen: set[tuple[tuple[str | int, ...], str]] = set()
    kept = []
    for problem in problems:
        mark = (problem.path, problem.message)
        if mark not in seen:
            seen.add(mark)
            kept.append(problem)
    return kept
