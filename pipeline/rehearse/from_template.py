"""Templates of services: which there are, and the YAML that one of them wants to be filled in.

In: those that come along, and a rules folder with its own. Out: templates by name; the text of
`sinks/<name>.yaml` or `integrations/<name>.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError, UsageError
from pipeline.rulebook.catalogue import suggest
from pipeline.rulebook.filled_template import parse_any
from pipeline.rulebook.folder import NAME, NAME_RULE
from pipeline.rulebook.reader import read_document
from pipeline.rulebook.template import Kind, ServiceTemplate


def templates_of(rules: Path, along: Mapping[str, bytes]) -> dict[str, ServiceTemplate]:
    """Return those that come `along` and those of the folder; ConfigError: one has a fault."""
    own = sorted((rules / "templates").glob("*.y*ml")) if rules.is_dir() else []
    files = {name: (name, raw) for name, raw in along.items()}
    files |= {path.stem: (f"templates/{path.name}", path.read_bytes()) for path in own}
    found = {}
    for name, (file, raw) in sorted(files.items()):
        document, faults = read_document(file, raw)
        if document is None:
            raise ConfigError(faults)
        if isinstance(document.value, list):
            continue  # The Things Stack's index of its templates
        template, problems = parse_any(document.value)
        if template is None:
            raise ConfigError([document.fault(problem) for problem in problems])
        found[name] = template
    return found


def chosen(name: str, found: Mapping[str, ServiceTemplate], kind: Kind) -> ServiceTemplate:
    """Return a template of a kind by name. UsageError: there is none."""
    names = [each for each, template in found.items() if template.kind == kind]
    if name in names:
        return found[name]
    of_others = f"it is of {found[name].kind}s" if name in found else ""
    hint = of_others or suggest(name, names) or "see `funicular templates`"
    raise UsageError(f"there is no template {name} of {kind}s ({hint})", code="no_template")


def text_of(name: str, template: ServiceTemplate, prefix: str = "") -> str:
    """Return the YAML, in which secrets come from the environment: `prefix`, by default the
    template's name, begins the names of their variables.
    """
    lines = [f"# {template.title}: {template.description}".rstrip(": ")]
    if template.documentation:
        lines.append(f"# {template.documentation}")
    lines.append(f"template: {name}")
    if template.variables:
        lines.append("variables:")
    begins = re.sub(r"[^A-Z0-9]", "_", (prefix or name).upper())
    for each, variable in template.variables.items():
        left_out = variable.optional or variable.default is not None
        value = f'"{variable.default}"' if variable.default is not None else '""'
        if variable.secret:
            value = f"${{env:{begins}_{each.upper()}}}".replace("-", "_")
        lines.append(f"  {'# ' if left_out else ''}{each}: {value}  # {variable.description}")
    return "\n".join(lines)


def new_from_template(name: str, template: str, *, rules: Path, along: Mapping[str, bytes]) -> str:
    """Return the YAML of a new integration. UsageError: its name cannot be one, or there is no
    such template.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"`{name}` cannot be a name: {NAME_RULE}", code="name")
    found = chosen(template, templates_of(rules, along), "integration")
    text = text_of(template, found, prefix=name)
    return f"{text}\n# converter: vendor/model     # makes telemetry of the payload\n"
