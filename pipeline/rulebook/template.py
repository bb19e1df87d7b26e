"""`templates/<service>.yaml` and what a user fills in → the document of a sink or an integration.

In: a template of ours, or one of The Things Stack's webhooks as it stands (`webhook_template.py`),
and values for its variables. Out: what the user would else have written into `sinks/<name>.yaml`
or `integrations/<name>.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote

from pydantic import Field, model_validator

from pipeline.part import Part
from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.validation import validate

VARIABLES_MAX = 50
VALUE_LENGTH_MAX = 8_192
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_IN_EXPRESSION = re.compile(r"\$\{[^}]*\{\{")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")
_SEGMENT_SAFE = ":@"

Path = tuple[str | int, ...]
Kind = Literal["sink", "integration"]
"""What a template stands for: a document of `sinks/` or of `integrations/`."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is special to the documents of a kind. `needed` must be there; a value is encoded as a
    part of an address in `addresses`, which look like `address`, as `example`; in `expressions` it
    is kept from being read as one; a field of `left_out` that it leaves empty goes (`()`: any).
    """

    needed: str
    addresses: frozenset[Path]
    address: re.Pattern[str]
    example: str
    expressions: frozenset[Path]
    left_out: Path


_RULES: Mapping[Kind, _Rules] = {
    "sink": _Rules(
        "transport",
        frozenset({("url",), ("server",)}),
        re.compile(r"https?://\S+"),
        "https://example.com/x",
        frozenset({("format",)}),
        ("headers",),
    ),
    "integration": _Rules(
        "dialect",
        frozenset({("connection", name) for name in ("server", "url", "storage")}),
        re.compile(r"[a-z][a-z0-9.+-]*://\S+"),
        "mqtts://broker.example.com:8883",
        frozenset({("connection", name) for name in ("query", "body")}),
        (),
    ),
}


class VariableConfig(Part):
    """What a user fills in. Without a `default` it must be given, unless it is `optional`."""

    description: str = Field(min_length=1, max_length=1_000)
    secret: bool = False
    default: str | None = Field(default=None, max_length=VALUE_LENGTH_MAX)
    optional: bool = False


class TemplateConfig(Part):
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
    Or `integration:`, with what would stand in integrations/<name>.yaml. In an address a value is
    encoded as one segment, unless the address begins with it; a value is never read as an
    expression. A header of a sink whose value is empty is left out, and any field of an
    integration.
    """

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(min_length=1, max_length=1_000)
    documentation: str = Field(default="", max_length=1_000)
    variables: dict[str, VariableConfig] = Field(default_factory=dict, max_length=VARIABLES_MAX)
    sink: dict[str, Any] | None = None
    integration: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _stands_for_one(self) -> Self:
        if (self.sink is None) == (self.integration is None):
            raise ValueError("give `sink`, or `integration`: what it stands for")
        return self

    @property
    def kind(self) -> Kind:
        """What it stands for."""
        return "integration" if self.sink is None else "sink"

    @property
    def document(self) -> dict[str, Any]:
        """What would stand there, with placeholders."""
        return self.sink or self.integration or {}


class Filler(Protocol):
    """Makes a document of values, one for each variable."""

    def __call__(self, values: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
        """Return the document, and what is wrong with values: at `variables`."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceTemplate:
    """A template that was read, of ours or another's."""

    kind: Kind
    title: str
    description: str
    documentation: str
    variables: Mapping[str, VariableConfig]
    fill: Filler = field(repr=False)


def parse_template(document: Any) -> tuple[ServiceTemplate | None, list[Problem]]:
    """Return a template of ours, or None and all that is wrong with it."""
    config, problems = validate(TemplateConfig, document)
    if config is None:
        return None, problems
    problems += _unfit(config)
    if problems:
        return None, problems
    template = ServiceTemplate(
        config.kind,
        config.name,
        config.description,
        config.documentation,
        config.variables,
        lambda values: _fill(config, values),
    )
    return template, []


def _unfit(config: TemplateConfig) -> Iterator[Problem]:
    kind = config.kind
    needed = _RULES[kind].needed
    if not isinstance(config.document.get(needed), str):
        example = {"transport": "http", "dialect": "tts_v3"}[needed]
        yield Problem((kind,), f"`{needed}` is missing", f"name one, as `{needed}: {example}`")
    used: set[str] = set()
    for path, text in _texts(config.document, (kind,)):
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
            yield Problem(
                ("variables", name), "is used nowhere", f"write {{{{{name}}}}} in `{kind}`"
            )


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
    rules = _RULES[config.kind]

    def filled(value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return _PLACEHOLDER.sub(
                lambda found: _encoded(found, value, path, values, rules, problems), value
            )
        if isinstance(value, dict):
            made = {key: filled(item, (*path, key)) for key, item in value.items()}
            if path[: len(rules.left_out)] != rules.left_out:
                return made
            return {key: item for key, item in made.items() if item != "" or value[key] == ""}
        if isinstance(value, list):
            return [filled(item, (*path, index)) for index, item in enumerate(value)]
        return value

    return filled(config.document, ()), problems


def without_empty_headers(document: dict[str, Any]) -> dict[str, Any]:
    """Return a sink's document without the headers that no value was given for."""
    headers = document.get("headers")
    if not isinstance(headers, dict):
        return document
    return document | {"headers": {name: value for name, value in headers.items() if value != ""}}


def _encoded(  # noqa: PLR0917 - what a placeholder's place says
    found: re.Match[str],
    text: str,
    path: Path,
    values: Mapping[str, str],
    rules: _Rules,
    problems: list[Problem],
) -> str:
    """Return a value as it may stand where its placeholder stood."""
    name = found[1].strip()
    value = values[name]
    if any(path[: len(place)] == place for place in rules.expressions):
        return value.replace("${", "$${")
    if not any(path[: len(place)] == place for place in rules.addresses):
        return value
    before = text[: found.start()]
    if not before:
        if not rules.address.fullmatch(value):
            said = f"must be a web address, as {rules.example}"
            problems.append(Problem(("variables", name), said))
        return value.rstrip("/") if text[found.end() :].startswith("/") else value
    if "://" in before and "/" not in before.partition("://")[2]:
        if not _HOST.fullmatch(value):
            problems.append(Problem(("variables", name), "must be a host's name, or part of one"))
        return value
    return quote(value, safe=_SEGMENT_SAFE)


def values_of(
    template: ServiceTemplate, given: Mapping[str, Any]
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
