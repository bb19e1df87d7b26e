"""`templates/<service>.yaml` and what a user fills in → the document of a sink.

In: a template of ours, or one of The Things Stack's webhooks as it stands (`webhook_template.py`),
and values for its variables. Out: what the user would else have written into `sinks/<name>.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.validation import validate

VARIABLES_MAX = 50
VALUE_LENGTH_MAX = 8_192
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_IN_EXPRESSION = re.compile(r"\$\{[^}]*\{\{")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")
_ADDRESS = re.compile(r"https?://\S+")
_ADDRESSES = frozenset({"url", "server"})  # these fields of a sink are web addresses
_SEGMENT_SAFE = ":@"

Path = tuple[str | int, ...]


class VariableConfig(BaseModel):
    """What a user fills in. Without a `default` it must be given, unless it is `optional`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    description: str = Field(min_length=1, max_length=1_000)
    secret: bool = False
    default: str | None = Field(default=None, max_length=VALUE_LENGTH_MAX)
    optional: bool = False


class TemplateConfig(BaseModel):
    """A service that needs a few values of each user alone: `templates/<service>.yaml`.

    ```yaml
    name: Example
    description: Messages as JSON to Example's inbox.
    documentation: https://docs.example.com/inbox
    variables:
      inbox: {description: The inbox's number}
      token: {description: An API token, secret: true}
    sink:                       # what would stand in sinks/<name>.yaml
      transport: http
      url: https://api.example.com/{{inbox}}/messages
      headers: {authorization: "Bearer {{token}}"}
    ```
    In an address a value is encoded as one segment, unless the address begins with it; a value is
    never read as an expression. A header whose value is empty is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(min_length=1, max_length=1_000)
    documentation: str = Field(default="", max_length=1_000)
    variables: dict[str, VariableConfig] = Field(default_factory=dict, max_length=VARIABLES_MAX)
    sink: dict[str, Any]


class Filler(Protocol):
    """Makes a sink's document of values, one for each variable."""

    def __call__(self, values: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
        """Return the document, and what is wrong with values: at `variables`."""
        ...


@dataclass(frozen=True, slots=True)
class SinkTemplate:
    """A template that was read, whichever kind it is of."""

    title: str
    description: str
    documentation: str
    variables: Mapping[str, VariableConfig]
    fill: Filler = field(repr=False)


def parse_template(document: Any) -> tuple[SinkTemplate | None, list[Problem]]:
    """Return a template of ours, or None and all that is wrong with it."""
    config, problems = validate(TemplateConfig, document)
    if config is None:
        return None, problems
    problems += _unfit(config)
    if problems:
        return None, problems
    template = SinkTemplate(
        config.name,
        config.description,
        config.documentation,
        config.variables,
        lambda values: _fill(config, values),
    )
    return template, []


def _unfit(config: TemplateConfig) -> Iterator[Problem]:
    if not isinstance(config.sink.get("transport"), str):
        yield Problem(("sink",), "`transport` is missing", "name one, as `transport: http`")
    used: set[str] = set()
    for path, text in _texts(config.sink, ("sink",)):
        inside = _IN_EXPRESSION.search(text)
        if inside:
            hint = "put it beside the expression"
            yield Problem(path, "a variable cannot stand within `${ … }`", hint, inside.start())
        for found in _PLACEHOLDER.finditer(text):
            name = found[1].strip()
            used.add(name)
            if name not in config.variables:
                hint = suggest(name, config.variables) or "declare it under `variables`"
                yield Problem(path, f"there is no variable `{name}`", hint, found.start())
    for name in config.variables:
        if name not in used:
            yield Problem(("variables", name), "is used nowhere", f"write {{{{{name}}}}} in `sink`")


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _fill(
    config: TemplateConfig, values: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []

    def filled(value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return _PLACEHOLDER.sub(
                lambda found: _encoded(found, value, path, values, problems), value
            )
        if isinstance(value, dict):
            return {key: filled(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item, (*path, index)) for index, item in enumerate(value)]
        return value

    document = filled(config.sink, ())
    return without_empty_headers(document), problems


def without_empty_headers(document: dict[str, Any]) -> dict[str, Any]:
    """Return a sink's document without the headers that no value was given for."""
    headers = document.get("headers")
    if not isinstance(headers, dict):
        return document
    return document | {"headers": {name: value for name, value in headers.items() if value != ""}}


def _encoded(
    found: re.Match[str],
    text: str,
    path: Path,
    values: Mapping[str, str],
    problems: list[Problem],
) -> str:
    """Return a value as it may stand where its placeholder stood."""
    name = found[1].strip()
    value = values[name]
    if path[0] == "format":
        return value.replace("${", "$${")
    if path[0] not in _ADDRESSES:
        return value
    before = text[: found.start()]
    if not before:
        if not _ADDRESS.fullmatch(value):
            problems.append(
                Problem(("variables", name), "must be a web address, as https://example.com/x")
            )
        return value.rstrip("/") if text[found.end() :].startswith("/") else value
    if "://" in before and "/" not in before.partition("://")[2]:
        if not _HOST.fullmatch(value):
            problems.append(Problem(("variables", name), "must be a host's name, or part of one"))
        return value
    return quote(value, safe=_SEGMENT_SAFE)


def values_of(
    template: SinkTemplate, given: Mapping[str, Any]
) -> tuple[dict[str, str], list[Problem]]:
    """Return a value for each variable, and what is wrong with those that are given."""
    problems = []
    for name, value in given.items():
        path: Path = ("variables", name)
        if name not in template.variables:
            listed = ", ".join(f"`{each}`" for each in template.variables) or "none"
            hint = suggest(str(name), template.variables) or f"there are {listed}"
            problems.append(Problem(path, f"there is no variable `{name}`", hint))
        elif type(value) not in (str, int, float):
            problems.append(Problem(path, "must be text or a number"))
        elif len(str(value)) > VALUE_LENGTH_MAX:
            problems.append(Problem(path, f"must have at most {VALUE_LENGTH_MAX:,} characters"))
    values = {}
    for name, variable in template.variables.items():
        value = given.get(name, variable.default)
        if value in (None, "") and not variable.optional:
            problems.append(
                Problem(
                    ("variables",) if "variables" in given or given else ("template",),
                    f"the variable `{name}` is missing: {variable.description}",
                    f"write `{name}: {'${env:…}' if variable.secret else '…'}` under `variables`",
                )
            )
        values[name] = "" if value is None else str(value)
    return values, problems
