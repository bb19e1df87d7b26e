"""`funicular import`: rules of other systems, as rules of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.speaking import FOLDER, USERS_MISTAKE, fail, json_line, json_option, telling

if TYPE_CHECKING:
    from pipeline.rehearse.thingsboard.importing import Imported

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("import")
def import_rules() -> None:
    """Turn rules of other systems into rules of ours."""


@import_rules.command("thingsboard")
@click.argument("chains", metavar="CHAIN.json...", nargs=-1, required=True, type=_FILE)
@click.option("--output", "-o", type=FOLDER,
              help="A rules folder to write into; else the chains are printed.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
@telling
def thingsboard(
    *, chains: tuple[Path, ...], output: Path | None, force: bool, as_json: bool
) -> None:
    """Turn rule chains that were exported from ThingsBoard into YAML.

    Give chains that run each other together. What could not be carried over is listed, and stands
    as a comment above the node that it is about. Scripts stay as they are (JavaScript and TBEL run
    here, too); plain conditions become expressions.

    \b
    Examples:
      funicular import thingsboard root_rule_chain.json
      funicular import thingsboard *.json --output rules
      funicular check rules
    """
    from pipeline.rehearse.thingsboard.importing import import_chains
    from pipeline.route.node import nodes

    exports = {str(path): path.read_bytes() for path in chains}
    imported = import_chains(exports, lambda verb: nodes()[verb].acts)
    if output is None:
        _print(imported, as_json=as_json)
    else:
        _write(imported, output, force=force)
    if as_json:
        for lost in imported.lost:
            json_line({"chain": lost.chain, "node": lost.node, "lost": lost.why})
        return
    for lost in imported.lost:
        click.secho(f"{lost.chain} / {lost.node}", bold=True, err=True, nl=False)
        click.echo(f": {lost.why}", err=True)
    count = len(imported.lost)
    notes = f"{count} note{'s' * (count != 1)} on what could not be carried over"
    said = notes if count else "all was carried over"
    click.secho(said, fg="yellow" if count else "green", err=True)


def _print(imported: Imported, *, as_json: bool) -> None:
    for file, text in imported.files.items():
        if as_json:
            json_line({"file": file, "text": text})
        else:
            click.echo(f"# {file}\n{text}")


def _write(imported: Imported, folder: Path, *, force: bool) -> None:
    there = [file for file in imported.files if (folder / file).exists()]
    if there and not force:
        fail(
            f"{folder}/{there[0]} is there already; write elsewhere, or say --force to replace"
            f" {len(there)} files",
            USERS_MISTAKE,
        )
    for file, text in imported.files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path}")
