"""The command `funicular`. Each command imports what it needs, so that `--version` is quick.

Exit codes: 0 fine, 1 something failed, 2 the user's mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline import __version__

if TYPE_CHECKING:
    from pipeline.rulebook.book import Rulebook
    from pipeline.settings import LogFormat, Settings

FAILED = 1
USERS_MISTAKE = 2

_FOLDER = click.Path(path_type=Path, file_okay=False)


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
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
            _fail(error.message, USERS_MISTAKE)
        except FunicularError as error:
            _fail(error.message, FAILED)
        except KeyboardInterrupt:
            sys.exit(130)

    return told


def _fail(message: str, code: int) -> NoReturn:
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


def _rules_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--rules",
        "-r",
        type=_FOLDER,
        multiple=True,
        default=["rules"],
        envvar="FUNICULAR_RULES",
        show_default=True,
        help="A rules folder; may be given several times, once a tenant.",
    )(command)


def _data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data",
        type=_FOLDER,
        default="data",
        envvar="FUNICULAR_DATA",
        show_default=True,
        help="Where the embedded log and the API's keys are kept.",
    )(command)


_json_option = click.option("--json", "as_json", is_flag=True, help="JSON lines, for machines.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", "-V", message="funicular %(version)s")
def main() -> None:
    r"""Carry messages from IoT devices up to applications, and commands back down.

    \b
    Begin with:
      funicular demo                 see it work, with a simulated fleet
      funicular check                is my rules/ folder right?
      funicular test                 do its converters and chains do what their tests say?
      funicular run                  run it on this machine
    """


@main.command()
@_rules_option
@_data_option
@click.option("--host", default="127.0.0.1", envvar="FUNICULAR_HOST", show_default=True,
              help="The address to listen on; other than loopback the API needs keys.")  # fmt: skip
@click.option("--port", default=8080, envvar="FUNICULAR_PORT", show_default=True,
              help="The port to listen on; 0: any free one.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["auto", "text", "json"]), default="auto",
              envvar="FUNICULAR_LOG_FORMAT", show_default=True)  # fmt: skip
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              default="info", envvar="FUNICULAR_LOG_LEVEL", show_default=True)  # fmt: skip
@_told
def run(
    *,
    rules: tuple[Path, ...],
    data: Path,
    host: str,
    port: int,
    log_format: LogFormat,
    log_level: str,
) -> None:
    r"""Run a rules folder on this machine, on the embedded log.

    It takes uplinks at http://HOST:PORT/in/{tenant}/{integration}. Ctrl-C (or SIGTERM) stops it:
    what is under way is finished, the rest is in the log and goes on at the next start.

    \b
    Examples:
      funicular run
      funicular run --rules acme/ --rules umbrella/ --data /var/lib/funicular --port 8443
    """
    from pipeline.settings import Settings, configure_logs

    configure_logs(log_format, log_level)
    _serve(Settings(rules=rules, data=data, host=host, port=port))


def _serve(settings: Settings) -> None:
    import asyncio
    import signal

    from pipeline.wiring import Funicular, run_loop

    async def serve() -> None:
        pipeline = Funicular(settings)
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked.set)
        await pipeline.start()
        try:
            ended = asyncio.ensure_future(pipeline.wait())
            stop = asyncio.ensure_future(asked.wait())
            await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if ended.done():
                ended.result()
            ended.cancel()
        finally:
            await pipeline.stop()

    run_loop(serve())


def _books(rules: tuple[Path, ...]) -> tuple[dict[str, Rulebook], Any]:
    """Return the rulebooks by tenant and the script processes that checked them."""
    from pipeline.metrics import Registry
    from pipeline.script import ScriptLimits, ScriptProcesses
    from pipeline.settings import configure_logs
    from pipeline.wiring import load_rules

    configure_logs("auto", "warning")
    scripts = ScriptProcesses(ScriptLimits(), Registry())
    try:
        return load_rules(rules, scripts), scripts
    except BaseException:
        scripts.close()
        raise


@main.command()
@click.argument("rules", nargs=-1, type=_FOLDER)
@_json_option
@_told
def check(rules: tuple[Path, ...], *, as_json: bool) -> None:
    r"""Say every fault of a rules folder at once: file, line, what is wrong, what was meant.

    \b
    Examples:
      funicular check
      funicular check acme/ umbrella/
      funicular check --json | jq .message
    """
    from pipeline.errors import ConfigError

    folders = rules or (Path("rules"),)
    try:
        books, scripts = _books(folders)
    except ConfigError as error:
        if not as_json:
            raise
        import dataclasses

        for fault in error.faults:
            _line(dataclasses.asdict(fault))
        sys.exit(USERS_MISTAKE)
    scripts.close()
    for book in books.values():
        counts = {
            "integrations": len(book.integrations),
            "converters": len(book.converters),
            "chains": len(book.chains),
            "sinks": len(book.sinks),
        }
        if as_json:
            _line({"tenant": book.tenant, "version": book.version, **counts})
        else:
            said = ", ".join(f"{count} {what}" for what, count in counts.items())
            click.echo(f"{book.folder}: fine ({said}; version {book.version})")


def _line(value: Any) -> None:
    import orjson

    click.echo(orjson.dumps(value, default=str).decode())


@main.group()
def keys() -> None:
    """Make, list and revoke the keys of the API.

    Without any key the API answers on loopback only. A key is shown once; only its hash is kept.
    """


_RIGHTS = ["read", "write", "admin"]


@keys.command("create")
@click.argument("tenant")
@click.option("--right", "-R", "rights", multiple=True, type=click.Choice(_RIGHTS),
              default=["read"], show_default=True,
              help="read: states; write: attributes, downlinks; admin: forget devices.")  # fmt: skip
@click.option("--note", default="", help="What it is for, to know it again in the list.")
@_data_option
@_told
def keys_create(tenant: str, rights: tuple[str, ...], note: str, data: Path) -> None:
    r"""Make a key for a tenant and show it, this once.

    \b
    Example:
      funicular keys create demo -R read -R write --note "the dashboard"
    """
    key, shown = _key_store(data).create(tenant, rights, note)
    click.echo(shown)
    click.secho(
        f"key {key.id} of tenant {tenant} ({', '.join(key.rights)}); it is not shown again."
        " Send it as `Authorization: Bearer …`",
        err=True,
    )


@keys.command("list")
@_data_option
@_json_option
@_told
def keys_list(data: Path, *, as_json: bool) -> None:
    """List the keys, without their secrets."""
    import msgspec

    for key in _key_store(data).list():
        if as_json:
            shown = msgspec.to_builtins(key)
            shown.pop("digest", None)
            _line(shown)
        else:
            rights = ",".join(key.rights)
            click.echo(f"{key.id}  {key.tenant:<16} {rights:<18} {key.note}")


@keys.command("revoke")
@click.argument("key_id")
@_data_option
@_told
def keys_revoke(key_id: str, data: Path) -> None:
    """Revoke a key; a running Funicular refuses it within a second."""
    key = _key_store(data).revoke(key_id)
    click.echo(f"revoked {key.id} of tenant {key.tenant}")


def _key_store(data: Path) -> Any:
    from pipeline.ingest import KeyStore
    from pipeline.settings import Settings
    from pipeline.stream.sqlite import wall_clock_ms

    return KeyStore(Settings(data=data).keys_file, now_ms=wall_clock_ms)


if __name__ == "__main__":
    main()
