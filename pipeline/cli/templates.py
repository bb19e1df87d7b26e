"""`funicular templates`: the services that a sink reaches by a template, and what each asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import FOLDER, USERS_MISTAKE, fail, json_line, telling

if TYPE_CHECKING:
    from pipeline.rulebook.template import SinkTemplate


@click.command()
@click.argument("name", required=False)
@click.option(
    "--rules",
    type=FOLDER,
    default=Path("rules"),
    envvar="FUNICULAR_RULES",
    show_default=True,
    help="A rules folder, whose own templates are listed too.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@telling
def templates(*, name: str | None, rules: Path, as_json: bool) -> None:
    """List the templates of sinks, or print the sink that NAME stands for, to be filled in.

    What is printed goes into sinks/<any name>.yaml.

    \b
    Examples:
      funicular templates
      funicular templates slack > rules/sinks/alarms.yaml
      funicular templates --json
    """
    found = _found(rules)
    if name is not None:
        if name not in found:
            from pipeline.rulebook.catalogue import suggest

            hint = suggest(name, found) or "see `funicular templates`"
            fail(f"there is no template {name} ({hint})", USERS_MISTAKE)
        found = {name: found[name]}
    if as_json:
        for each, template in found.items():
            json_line(_as_json(each, template))
    elif name is not None:
        click.echo(_as_sink(name, found[name]))
    else:
        width = max(map(len, found))
        for each, template in found.items():
            click.echo(f"{each:<{width}}  {template.description or template.title}")


def _found(rules: Path) -> dict[str, SinkTemplate]:
    """Return those that come along and those of the folder; ConfigError: one has a fault."""
    from pipeline.errors import ConfigError
    from pipeline.rulebook.reader import read_document
    from pipeline.rulebook.sink_template import parse_any
    from pipeline.wiring import catalogue

    own = sorted((rules / "templates").glob("*.y*ml")) if rules.is_dir() else []
    files = {name: (name, raw) for name, raw in catalogue().templates.items()}
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


def _as_json(name: str, template: SinkTemplate) -> dict[str, Any]:
    return {
        "name": name,
        "title": template.title,
        "description": template.description,
        "documentation": template.documentation,
        "variables": {each: variable.model_dump() for each, variable in template.variables.items()},
    }


def _as_sink(name: str, template: SinkTemplate) -> str:
    lines = [f"# {template.title}: {template.description}".rstrip(": ")]
    if template.documentation:
        lines.append(f"# {template.documentation}")
    lines.append(f"template: {name}")
    if template.variables:
        lines.append("variables:")
    for each, variable in template.variables.items():
        left_out = variable.optional or variable.default is not None
        value = f'"{variable.default}"' if variable.default is not None else '""'
        if variable.secret:
            value = f"${{env:{name.upper()}_{each.upper()}}}".replace("-", "_")
        lines.append(f"  {'# ' if left_out else ''}{each}: {value}  # {variable.description}")
    return "\n".join(lines)
