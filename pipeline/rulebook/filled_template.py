"""A sink's or integration's document that names a `template` → the document that it stands for.

In: `template`, `variables`, and whatever the user wants otherwise than the template has it. Out: a
document without these, and what is wrong, where the user wrote it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.template import Kind, Path, ServiceTemplate, parse_template, values_of
from pipeline.rulebook.webhook_template import MARK, parse_webhook_template

_TOGETHER: Mapping[Kind, tuple[str, ...]] = {
    "sink": ("headers",),
    "integration": ("connection", "options", "metadata"),
}
"""Fields whose entries are put together; of any other the user's counts alone."""


def parse_any(document: Any) -> tuple[ServiceTemplate | None, list[Problem]]:
    """Return a template of ours or of The Things Stack, or None and all that is wrong with it."""
    if isinstance(document, dict) and MARK in document:
        return parse_webhook_template(document)
    return parse_template(document)


def filled_in(
    template: ServiceTemplate, given: Mapping[str, Any], *, referenced: Container[Path]
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Return the whole document; None: a variable has a fault. `referenced` has the paths of what
    came from `${env:…}` or `${file:…}`: a secret that does not is warned of.

    What stands beside `template` and `variables` counts more than the template's; the entries of
    headers are put together, and those of an integration's `connection`, `options`, `metadata`.
    """
    variables = given.get("variables")
    if variables is not None and not isinstance(variables, dict):
        return None, [Problem(("variables",), "must be a mapping (`key: value`)")]
    values, problems = values_of(template, variables or {})
    if problems:
        return None, problems
    document, problems = template.fill(values)
    if problems:
        return None, problems
    rest = {key: value for key, value in given.items() if key not in {"template", "variables"}}
    for name in _TOGETHER[template.kind]:
        if isinstance(rest.get(name), dict) and isinstance(document.get(name), dict):
            rest[name] = {**document[name], **rest[name]}
    warnings = [
        Problem(
            ("variables", name),
            f"`{name}` is a secret, and stands here for all to read",
            "write ${env:NAME} or ${file:PATH}",
            warns=True,
        )
        for name in variables or {}
        if template.variables[name].secret and ("variables", name) not in referenced
    ]
    return {**document, **rest}, warnings


def in_user_words(given: Mapping[str, Any], problems: Iterable[Problem]) -> list[Problem]:
    """Return problems of a whole document at places that the user's has: what the template brought
    is its fault, and stands at `template`.
    """
    if "template" not in given:
        return list(problems)
    return [
        problem
        if _stands_in(given, problem.path)
        else Problem(
            ("template",),
            f"with these variables it does not fit: {_named(problem.path)}{problem.message}",
            problem.suggestion,
            warns=problem.warns,
        )
        for problem in problems
    ]


def _stands_in(given: Mapping[str, Any], path: Path) -> bool:
    """Return whether the user wrote what a path leads to: its first two levels are looked at, as
    deep as documents are put together.
    """
    if not path or path[0] not in given:
        return False
    inside = given[str(path[0])]
    return len(path) == 1 or not isinstance(inside, dict) or path[1] in inside


def _named(path: Path) -> str:
    return f"`{'.'.join(map(str, path))}` " if path else ""
