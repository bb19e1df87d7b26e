"""`funicular check` and `funicular test`: is a rules folder right, and does it do what it says?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
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
    from pipeline.errors import ConfigError, Fault
    from pipeline.rehearse.coverage import ChainCoverage
    from pipeline.rehearse.result import Result
    from pipeline.rulebook.book import Rulebook


@click.command()
@click.argument("rules", nargs=-1, type=FOLDER)
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@click.option("--github", is_flag=True, help="Say it as annotations of GitHub's workflows.")
@json_option
@telling
def check(rules: tuple[Path, ...], *, strict: bool, github: bool, as_json: bool) -> None:
    """Say every fault of a rules folder at once: file, line, what is wrong, what was meant.

    Warnings are what runs, but hardly as it was meant: a node whose messages go nowhere, an output
    that nobody takes. A faulty chain puts off the checks between chains.

    \b
    Examples:
      funicular check
      funicular check acme/ umbrella/
      funicular check --strict --github      # in a workflow: marks the lines of a pull request
      funicular check --json | jq .message
    """
    from pipeline.errors import ConfigError

    say = partial(_say, style="github" if github else "json" if as_json else "text")
    folders = rules or (Path("rules"),)
    try:
        with rulebooks(folders) as (books, _):
            warned = [(book.folder, fault) for book in books.values() for fault in book.warnings]
            for folder, fault in warned:
                say("warning", folder, fault)
            for book in books.values():
                _fine(book, as_json=as_json)
    except ConfigError as error:
        for folder, fault in _with_folders(folders, error):
            say("error", folder, fault)
        if not (as_json or github):
            count = len(error.faults)
            click.secho(f"{count} fault{'s' * (count != 1)}", fg="red", err=True)
        sys.exit(USERS_MISTAKE)
    if warned and strict:
        sys.exit(FAILED)


def _with_folders(folders: tuple[Path, ...], error: ConfigError) -> list[tuple[Path, Fault]]:
    """Return each fault with the folder that it is in; faults themselves do not say."""
    from pipeline.errors import ConfigError

    if len(folders) == 1:
        return [(folders[0], fault) for fault in error.faults]
    found: list[tuple[Path, Fault]] = []
    for folder in folders:
        try:
            with rulebooks((folder,)):
                pass
        except ConfigError as own:
            found += [(folder, fault) for fault in own.faults]
    placed = [fault for _, fault in found]
    return found + [(Path(), fault) for fault in error.faults if fault not in placed]


def _say(level: str, folder: Path, fault: Fault, *, style: str) -> None:
    if style == "json":
        json_line({"level": level, "folder": str(folder), **asdict(fault)})
        return
    file = str(folder / fault.file)
    if style == "github":
        place = f",line={fault.line},col={fault.column}" if fault.line else ""
        hint = f" ({fault.suggestion})" if fault.suggestion else ""
        told = f"{fault.message}{hint}".replace("%", "%25").replace("\n", "%0A")
        click.echo(f"::{level} file={file}{place}::{told}")
        return
    place = f"{file}:{fault.line}:{fault.column}" if fault.line else file
    colour = "red" if level == "error" else "yellow"
    click.secho(place, bold=True, err=True, nl=False)
    click.secho(f": {level}: " if level == "warning" else ": ", fg=colour, err=True, nl=False)
    click.echo(fault.message, err=True, nl=False)
    click.secho(f"  ({fault.suggestion})" if fault.suggestion else "", fg="cyan", err=True)


def _fine(book: Rulebook, *, as_json: bool) -> None:
    counts = {
        "integrations": len(book.integrations),
        "converters": len(book.converters),
        "chains": len(book.chains),
        "sinks": len(book.sinks),
    }
    warnings = len(book.warnings)
    if as_json:
        json_line({"tenant": book.tenant, "version": book.version, **counts, "warnings": warnings})
        return
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    warned = f"{warnings} warning{'s' * (warnings != 1)}; " if warnings else ""
    click.echo(f"{book.folder}: fine ({warned}{said}; version {book.version})")


@click.command("test")
@click.argument("rules", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False),
              help="Also write the results as JUnit XML.")  # fmt: skip
@click.option("--only", multiple=True, help="Converters or chains by name; all if left away.")
@click.option("--verbose", "-v", is_flag=True, help="Show those that pass, too.")
@click.option("--coverage", "detailed", is_flag=True,
              help="List the nodes and outlets of chains that no test reached.")  # fmt: skip
@click.option("--fail-under", type=click.FloatRange(0, 100), metavar="PERCENT",
              help="Fail where less than this of all nodes and outlets was reached.")  # fmt: skip
@json_option
@telling
def check_examples(
    *, rules: tuple[Path, ...], junit: Path | None, only: tuple[str, ...], verbose: bool,
    detailed: bool, fail_under: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Run the examples of converters and the tests of chains, offline.

    RULES may also be a public library of codecs, or a part of one, in the layout of
    TheThingsNetwork/lorawan-devices, of ChirpStack's device profiles, or of ThingsBoard's
    converters.

    \b
    Examples:
      funicular test
      funicular test --only thermostats --verbose
      funicular test --junit results.xml
      funicular test --coverage --fail-under 90
      funicular test ../lorawan-devices/vendor
    """
    from pipeline.rehearse import report
    from pipeline.rehearse.chain_tests import run_chain_tests
    from pipeline.rehearse.choice import check_names
    from pipeline.rehearse.coverage import Coverage
    from pipeline.rehearse.examples import run_examples
    from pipeline.rehearse.library import is_library

    results = []
    folders = rules or (Path("rules"),)
    # A rules folder's converters have a library's layout, too.
    libraries = [path for path in folders if not _is_rules(path) and is_library(path)]
    if libraries:
        results += _libraries(libraries, only)
    own = tuple(path for path in folders if path not in libraries)
    reached: list[ChainCoverage] = []
    with rulebooks(own) as (books, scripts):
        check_names(books.values(), only)
        for book in books.values():
            results += run_examples(book, scripts, only=only)
            coverage = Coverage()
            results += run_chain_tests(book, scripts, only=only, watch=coverage.watch)
            reached += coverage.of(book, only)
    if junit is not None:
        junit.write_text(report.junit(results, _properties(reached)))
    if as_json:
        for result in report.as_json(results):
            json_line(result)
    else:
        colours = {"passed": "green", "failed": "red", "detail": None, "sum": "green"}
        for text, style in report.lines(results, verbose=verbose):
            click.secho(text, fg=colours[style])
    enough = _cover(reached, fail_under, detailed=detailed, as_json=as_json)
    if not enough or not all(result.ok for result in results):
        sys.exit(FAILED)


def _cover(
    reached: list[ChainCoverage], fail_under: float | None, *, detailed: bool, as_json: bool
) -> bool:
    """Say what tests reached of chains; return whether it is enough."""
    from pipeline.rehearse import coverage

    if not reached:
        return True
    enough = fail_under is None or coverage.percent(reached) >= fail_under
    if as_json:
        json_line(coverage.as_json(reached))
        return enough
    for text, style in coverage.lines(reached) if detailed else ():
        click.secho(text, bold=style == "sum")
    short = "" if enough else f", less than {fail_under:g} %"
    hint = "" if detailed or coverage.percent(reached) == 100 else " (--coverage lists the rest)"
    click.secho(
        coverage.summary(reached) + short + hint, fg=None if enough else "red", bold=not enough
    )
    return enough


def _properties(reached: list[ChainCoverage]) -> dict[str, dict[str, object]]:
    """Return coverage as properties of JUnit's suites: each chain's at its tests, and the whole."""
    from pipeline.rehearse import coverage

    if not reached:
        return {}
    of_files = {
        each.file.removesuffix(".yaml") + "_test.yaml": {
            "coverage.percent": each.percent,
            "coverage.nodes": f"{each.nodes_reached}/{each.nodes}",
            "coverage.outlets": f"{each.outlets_reached}/{each.outlets}",
        }
        for each in reached
    }
    return {**of_files, "coverage": {"coverage.percent": coverage.percent(reached)}}


def _is_rules(path: Path) -> bool:
    return any(
        (path / name).exists()
        for name in ("funicular.yaml", "integrations", "converters", "chains")
    )


def _libraries(paths: list[Path], only: tuple[str, ...]) -> list[Result]:
    """Run libraries of codecs and say a line a vendor; return all results."""
    from pipeline.logs import configure_logs
    from pipeline.metrics import Registry
    from pipeline.rehearse.library import run_library
    from pipeline.script import ScriptLimits
    from pipeline.wiring import script_port

    configure_logs("auto", "error")
    # The libraries' own runner gives a codec a second; some are slow at their first call.
    scripts = script_port(ScriptLimits(call_ms=1_000), Registry())
    results: list[Result] = []
    try:
        for path in paths:
            for report in run_library(path, scripts, only=only):
                colour = "red" if report.failed else "green"
                left = f", {len(report.unrunnable)} cannot run" if report.unrunnable else ""
                said = f"{report.vendor}: {report.passed} passed, {report.failed} failed{left}"
                click.secho(said, fg=colour, err=True)
                for each in report.unrunnable:
                    click.echo(f"  {each.file}: {each.reason}", err=True)
                results += report.results
    finally:
        scripts.close()
    return results
