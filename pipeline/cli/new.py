"""`funicular new`: something to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from pipeline.cli.speaking import FOLDER, json_line, json_option, telling


@click.group()
def new() -> None:
    """Write something to begin with."""


@new.command()
@click.argument("name")
@click.option("--dialect", default="", help="The network server, as chirpstack or tts_v3.")
@click.option("--transport", default="",
              help="As http, mqtt, kafka; by default the dialect's usual way.")  # fmt: skip
@click.option("--template", default="",
              help="In place of these: a service, as aws-iot (`funicular templates`).")  # fmt: skip
@click.option("--rules", "-r", type=FOLDER, default="rules", envvar="FUNICULAR_RULES",
              show_default=True, help="The rules folder to write to.")  # fmt: skip
@json_option
@telling
def integration(
    *, name: str, dialect: str, transport: str, template: str, rules: Path, as_json: bool
) -> None:
    """Write integrations/NAME.yaml, to be filled in.

    \b
    Examples:
      funicular new integration meters --dialect sigfox
      funicular new integration barn --dialect chirpstack --transport mqtt
      funicular new integration plant --template aws-iot
    """
    from pipeline.ingest.source import connection_models
    from pipeline.integrations.dialect import dialects
    from pipeline.rehearse.new_integration import dialect_of, new_integration, write_new

    if bool(dialect) == bool(template) or (template and transport):
        raise click.UsageError("give --dialect (and perhaps --transport), or --template")
    if template:
        from pipeline.rehearse.from_template import new_from_template
        from pipeline.wiring import catalogue

        along = catalogue().templates
        text = new_from_template(name, template, rules=rules, along=along)
    else:
        chosen = dialect_of(dialects(), dialect)
        text = new_integration(name, chosen, transport, transports=connection_models())
    path = write_new(rules, name, text)
    if as_json:
        json_line({"integration": name, "file": str(path)})
        return
    click.echo(f"{path}: fill it in, then: funicular check {rules}")


@new.command()
@click.argument("name", metavar="VENDOR/MODEL")
@click.option("--language", default="js", show_default=True,
              type=click.Choice(["js", "lua", "layout"]),
              help="A script, or fields of a binary payload without one.")  # fmt: skip
@click.option("--rules", "-r", type=FOLDER, default="rules", envvar="FUNICULAR_RULES",
              show_default=True, help="The rules folder to write to.")  # fmt: skip
@json_option
@telling
def converter(
    *, name: str, language: Literal["js", "lua", "layout"], rules: Path, as_json: bool
) -> None:
    """Write a converter for a model, with examples that pass; what is there is left alone.

    \b
    Examples:
      funicular new converter acme/thermostat
      funicular new converter acme/meter --language lua
      funicular new converter acme/valve --language layout --rules my-rules
    """
    from pipeline.rehearse.new_converter import new_converter, write_converter

    paths = write_converter(rules, new_converter(name, language))
    if as_json:
        json_line({"converter": name, "files": [str(path) for path in paths]})
        return
    click.echo(f"{', '.join(map(str, paths))}: next: funicular test {rules} --only {name}")


@new.command()
@click.argument("name", required=False)
@click.argument("folder", type=FOLDER, default="rules")
@json_option
@telling
def example(*, name: str | None, folder: Path, as_json: bool) -> None:
    """Copy the worked example NAME into FOLDER (default: rules); without NAME, list them.

    Each is a whole rules folder with tests: read it, change it, run it.

    \b
    Examples:
      funicular new example
      funicular new example cold-chain
      funicular new example parking my-rules && funicular test my-rules
    """
    from pipeline.rehearse.worked import copy_example, worked_examples

    if name is None:
        for known, about in worked_examples().items():
            if as_json:
                json_line({"example": known, "about": about})
            else:
                click.secho(known, bold=True, nl=False)
                click.echo(f": {about}")
        return
    files = copy_example(name, folder)
    if as_json:
        json_line({"example": name, "folder": str(folder), "files": [str(file) for file in files]})
        return
    click.echo(f"{folder}: {len(files)} files; begin with {folder / 'README.md'}")
    click.echo(f"next: funicular test {folder}; funicular run --rules {folder}")
