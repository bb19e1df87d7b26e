"""What all commands share: how faults are told, how JSON is printed, options that many have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from pipeline.ports import Script, ScriptPort
    from pipeline.rehearse.recorded import Records
    from pipeline.rulebook.book import Rulebook

FAILED = 1
USERS_MISTAKE = 2

FOLDER = click.Path(path_type=Path, file_okay=False)


def telling(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what Funicular raises on purpose into a sentence on stderr and an exit code."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        from pipeline.errors import ConfigError, FunicularError, UsageError

        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            _show_faults(error)
            sys.exit(USERS_MISTAKE)
        except UsageError as error:
            fail(error.message, USERS_MISTAKE)
        except FunicularError as error:
            fail(error.message, FAILED)
        except KeyboardInterrupt:
            sys.exit(130)

    return told


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong on stderr, and end."""
    click.secho(f"funicular: {message}", fg="red", err=True)
    sys.exit(code)


def _show_faults(error: Any) -> None:
    for fault in error.faults:
        place = f"{fault.file}:{fault.line}:{fault.column}" if fault.line else fault.file
        click.secho(place, bold=True, err=True, nl=False)
        click.echo(f": {fault.message}", err=True, nl=False)
        click.secho(f"  ({fault.suggestion})" if fault.suggestion else "", fg="cyan", err=True)
    count = len(error.faults)
    click.secho(f"{count} fault{'s' * (count != 1)}; nothing was started", fg="red", err=True)


def rules_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--rules`."""
    return click.option(
        "--rules",
        "-r",
        type=FOLDER,
        multiple=True,
        default=["rules"],
        envvar="FUNICULAR_RULES",
        show_default=True,
        help="A rules folder; may be given several times, once a tenant.",
    )(command)


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data`."""
    return click.option(
        "--data",
        type=FOLDER,
        default="data",
        envvar="FUNICULAR_DATA",
        show_default=True,
        help="Where the embedded log and the API's keys are kept.",
    )(command)


def log_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--log`."""
    return click.option(
        "--log",
        "log_url",
        default="embedded",
        envvar="FUNICULAR_LOG",
        show_default=True,
        help="embedded; or kafka://HOST:9092,… (faust://… for those who run Faust).",
    )(command)


def recorded_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--log` and `--data`, for commands that only read a log."""
    return data_option(
        click.option(
            "--log",
            "log_url",
            default="embedded",
            envvar="FUNICULAR_LOG",
            show_default=True,
            help="The log to read: embedded (in --data), sqlite:FILE, or kafka://HOST:9092,…",
        )(command)
    )


def open_recorded(log_url: str, data: Path) -> Records:
    """Return what is recorded in a log, to be closed. UsageError: there is no such log."""
    import os

    from pipeline.errors import UsageError
    from pipeline.rehearse.recorded import EmbeddedRecords
    from pipeline.settings import EMBEDDED, Settings

    scheme, _, rest = log_url.partition(":")
    if log_url == EMBEDDED:
        return EmbeddedRecords(Settings(data=data).log_file)
    if scheme == "sqlite" and rest:
        return EmbeddedRecords(Path(rest.removeprefix("//")))
    if scheme in ("kafka", "faust"):
        try:
            from pipeline.stream.kafka_settings import KafkaSettings
            from pipeline.stream.kafka_view import KafkaView
        except ImportError as error:
            raise UsageError(
                f"{scheme}:// needs {error.name}: pip install 'funicular[kafka]'"
            ) from None
        return KafkaView(KafkaSettings.from_url(f"kafka:{rest}", os.environ))
    raise UsageError(f"`{log_url}` is no log: give embedded, sqlite:FILE or kafka://HOST:9092")


json_option = click.option("--json", "as_json", is_flag=True, help="JSON lines, for machines.")


def json_line(value: Any) -> None:
    """Print one line of JSON."""
    import orjson

    click.echo(orjson.dumps(value, default=str).decode())


@contextmanager
def rulebooks(rules: tuple[Path, ...]) -> Iterator[tuple[dict[str, Rulebook], ScriptPort]]:
    """Give the rulebooks by tenant, and the script processes that checked them."""
    from pipeline.logs import configure_logs
    from pipeline.metrics import Registry
    from pipeline.script import ScriptLimits
    from pipeline.wiring import load_rules, script_port

    configure_logs("auto", "warning")
    scripts = script_port(ScriptLimits(), Registry(), _printed)
    try:
        yield load_rules(rules, scripts), scripts
    finally:
        scripts.close()


def _printed(script: Script, lines: Sequence[str]) -> None:
    for line in lines:
        click.secho(f"{script.path}: {line}", dim=True, err=True)


def file_name(file: Any) -> str:
    """Return what an open file is called; stdin has no name."""
    name = str(getattr(file, "name", "-"))
    return "stdin" if name in ("-", "<stdin>") else name


def one_book(books: dict[str, Rulebook]) -> Rulebook:
    """Return the only rulebook. UsageError: there are several."""
    from pipeline.errors import UsageError

    if len(books) != 1:
        raise UsageError("give one rules folder: --rules PATH")
    return next(iter(books.values()))
