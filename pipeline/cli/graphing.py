"""`funicular graph`: pictures of the rules."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.speaking import one_book, rulebooks, rules_option, telling

FORMATS = ("mermaid", "svg", "json")
_ENDINGS = {".svg": "svg", ".json": "json", ".mmd": "mermaid", ".mermaid": "mermaid"}


@click.command()
@click.argument("chains", nargs=-1, metavar="[CHAIN]...")
@click.option("--format", "-f", "wanted", type=click.Choice(FORMATS),
              help="By the ending of --output, else mermaid.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False),
              help="The file to write; standard output if left away.")  # fmt: skip
@rules_option
@telling
def graph(
    *, chains: tuple[str, ...], wanted: str | None, output: Path | None, rules: tuple[Path, ...]
) -> None:
    """Draw CHAINs: nodes, and the outlets between them; without any, all of them and how
    integrations, chains and sinks hang together.

    \b
    Examples:
      funicular graph -o rules.svg
      funicular graph thermostats --format mermaid
      funicular graph --format json | jq '.[].name'
    """
    import msgspec

    from pipeline.errors import UsageError
    from pipeline.rehearse.graph import graphs_of
    from pipeline.rehearse.graph_mermaid import mermaid
    from pipeline.rehearse.graph_svg import svg

    with rulebooks(rules) as (books, _):
        graphs = graphs_of(one_book(books), chains)
    ending = output.suffix.lower() if output is not None else ""
    form = wanted or _ENDINGS.get(ending, "mermaid")
    if form == "svg":
        text = svg(graphs)
    elif form == "mermaid":
        text = mermaid(graphs)
    else:
        text = msgspec.json.format(msgspec.json.encode(graphs)).decode() + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    click.echo(f"{output}: {len(graphs)} graph{'s' * (len(graphs) != 1)}", err=True)
