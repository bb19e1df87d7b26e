"""`funicular check` and `funicular test`: is a rules folder right, and does it do what it says?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.speaking import (
    FAILED,
    FOLDER,
    USERS_MISTAKE,
    json_line,
    json_option,
    rulebooks,
    telling,
)

if TYPE_CHECKING:
    from pipeline.rulebook.book import Rulebook


@click.command()
@click.argument("rules", nargs=-1, type=FOLDER)
@json_option
@telling
def check(rules: tuple[Path, ...], *, as_json: bool) -> None:
    """Say every fault of a rules folder at once: file, line, what is wrong, what was meant.

    \b
    Examples:
      funicular check
      funicular check acme/ umbrella/
      funicular check --json | jq .message
    """
    from pipeline.errors import ConfigError

    folders = rules or (Path("rules"),)
    try:
        with rulebooks(folders) as (books, _):
            for book in books.values():
                _fine(book, as_json=as_json)
    except ConfigError as error:
        if not as_json:
            raise
        for fault in error.faults:
            json_line(asdict(fault))
        sys.exit(USERS_MISTAKE)


def _fine(book: Rulebook, *, as_json: bool) -> None:
    counts = {
        "integrations": len(book.integrations),
        "converters": len(book.converters),
        "chains": len(book.chains),
        "sinks": len(book.sinks),
    }
    if as_json:
        json_line({"tenant": book.tenant, "version": book.version, **counts})
    else:
        said = ", ".join(f"{count} {what}" for what, count in counts.items())
        click.echo(f"{book.folder}: fine ({said}; version {book.version})")


@click.command("test")
@click.argument("rules", nargs=-1, type=FOLDER)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False),
              help="Also write the results as JUnit XML.")  # fmt: skip
@click.option("--only", multiple=True, help="Converters or chains by name; all if left away.")
@click.option("--verbose", "-v", is_flag=True, help="Show those that pass, too.")
@json_option
@telling
def check_examples(
    *, rules: tuple[Path, ...], junit: Path | None, only: tuple[str, ...], verbose: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the examples of converters and the tests of chains, offline.

    \b
    Examples:
      funicular test
      funicular test --only thermostats --verbose
      funicular test --junit results.xml
    """
    from pipeline.rehearse import report
    from pipeline.rehearse.chain_tests import run_chain_tests
    from pipeline.rehearse.choice import check_names
    from pipeline.rehearse.examples import run_examples

    results = []
    with rulebooks(rules or (Path("rules"),)) as (books, scripts):
        check_names(books.values(), only)
        for book in books.values():
            results += run_examples(book, scripts, only=only)
            results += run_chain_tests(book, scripts, only=only)
    if junit is not None:
        junit.write_text(report.junit(results))
    if as_json:
        for result in report.as_json(results):
            json_line(result)
    else:
        colours = {"passed": "green", "failed": "red", "detail": None, "sum": "green"}
        for text, style in report.lines(results, verbose=verbose):
            click.secho(text, fg=colours[style])
    if not all(result.ok for result in results):
        sys.exit(FAILED)
