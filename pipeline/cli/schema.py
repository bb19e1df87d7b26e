"""`funicular schema`: JSON Schemas of the topics' values, and of the files in a rules folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.speaking import FOLDER, USERS_MISTAKE, fail, telling

_KINDS = ("funicular", "integration", "converter", "sink", "chain", "test")


@click.command()
@click.argument("what", metavar="[TOPIC|rules]", required=False)
@click.option("--kind", type=click.Choice(_KINDS), help="Of `rules`: only this kind of file.")
@click.option("--output", "-o", type=FOLDER,
              help="Of `rules`: write a file a kind into this folder.")  # fmt: skip
@telling
def schema(*, what: str | None, kind: str | None, output: Path | None) -> None:
    """Print the JSON Schema of a topic's values, or of the files in a rules folder.

    Without an argument: of all topics. An editor with the YAML language server completes, explains
    and checks while you write, once each kind of file knows its schema: by the settings that
    `schema rules --output` prints, or by a file's first line, as
    `# yaml-language-server: $schema=../../.schemas/chain.json`.

    \b
    Examples:
      funicular schema downlink.status
      funicular schema rules --kind chain
      funicular schema rules --output .schemas
    """
    if what != "rules":
        if kind is not None or output is not None:
            fail("--kind and --output are for `funicular schema rules`", USERS_MISTAKE)
        _print(_of_topics(what))
        return
    from pipeline.rulebook.schema import json_schema
    from pipeline.wiring import catalogue

    made = json_schema(catalogue())
    if output is not None:
        _write({kind: made[kind]} if kind else made, output)
    else:
        _print(made[kind] if kind else made)


def _of_topics(topic: str | None) -> dict[str, Any]:
    from pipeline.topics import schemas

    found: dict[str, dict[str, Any]] = schemas()
    if topic is None:
        return found
    if topic not in found:
        listed = ", ".join(sorted(found))
        fail(f"there is no topic {topic}: there are {listed}; or say `rules`", USERS_MISTAKE)
    return found[topic]


def _write(schemas: dict[str, dict[str, Any]], folder: Path) -> None:
    """Write a file a kind, and print what an editor's settings need to know of them."""
    from pipeline.errors import UsageError
    from pipeline.rulebook.schema import FILES

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, made in schemas.items():
            (folder / f"{kind}.json").write_text(_text(made) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    # Both patterns of chains would fit a test, and an editor would hold it to both.
    patterns = {**FILES, "chain": "chains/!(*_test).yaml"}
    settings = {f"{folder}/{kind}.json": f"rules/{patterns[kind]}" for kind in schemas}
    click.echo("For .vscode/settings.json (or any editor with the YAML language server):", err=True)
    _print({"yaml.schemas": settings})


def _print(value: Any) -> None:
    click.echo(_text(value))


def _text(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
