"""`funicular templates`: the services that a sink or an integration reaches by a template, and what
each asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import FOLDER, USERS_MISTAKE, fail, json_line, telling

if TYPE_CHECKING:
    from pipeline.rulebook.template import ServiceTemplate


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
    """List the templates of sinks and integrations, or print what NAME wants to be filled in.

    What is printed goes into sinks/<any name>.yaml or integrations/<any name>.yaml.

    \b
    Examples:
      funicular templates
      funicular templates slack > rules/sinks/alarms.yaml
      funicular templates aws-iot > rules/integrations/plant.yaml
      funicular templates --json
    """
    from pipeline.rehearse.from_template import templates_of, text_of
    from pipeline.wiring import catalogue

    found = templates_of(rules, catalogue().templates)
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
        click.echo(text_of(name, found[name]))
    else:
        width = max(map(len, found))
        for each, template in found.items():
            said = template.description or template.title
            click.echo(f"{each:<{width}}  {template.kind:<11}  {said}")


def _as_json(name: str, template: ServiceTemplate) -> dict[str, Any]:
    return {
        "name": name,
        "of": template.kind,
        "title": template.title,
        "description": template.description,
        "documentation": template.documentation,
        "variables": {each: variable.model_dump() for each, variable in template.variables.items()},
    }
