"""`funicular run` and `funicular worker`: the pipeline in one process, or some of its rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import data_option, log_option, rules_option, telling

if TYPE_CHECKING:
    from pipeline.logs import LogFormat
    from pipeline.settings import Settings


def _networks(_context: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> Any:
    from pipeline.sink.addresses import networks_of

    try:
        return networks_of(words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        rules_option,
        data_option,
        log_option,
        click.option("--host", default="127.0.0.1", envvar="FUNICULAR_HOST", show_default=True,
                     help="The address to listen on; elsewhere than on loopback the API"
                     " needs keys."),
        click.option("--port", default=8080, envvar="FUNICULAR_PORT", show_default=True,
                     type=click.IntRange(0, 65_535),
                     help="The port to listen on; 0: any free one."),
        click.option("--slot", type=click.IntRange(0), envvar="FUNICULAR_SLOT",
                     help="On Kafka: which worker of this machine; the first free if left away."),
        click.option("--watch/--no-watch", default=True, envvar="FUNICULAR_WATCH",
                     show_default=True,
                     help="Load edited rules while it runs; a faulty edit is refused."),
        click.option("--allow-network", "allowed_networks", multiple=True, metavar="NETWORK",
                     envvar="FUNICULAR_ALLOW_NETWORKS", callback=_networks,
                     help="Let requests go there, besides public addresses: 10.1.0.0/16, an"
                     " address, `loopback` or `private`; may be repeated."),
        click.option("--log-format", type=click.Choice(["auto", "text", "json"]), default="auto",
                     envvar="FUNICULAR_LOG_FORMAT", show_default=True),
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
                     default="info", envvar="FUNICULAR_LOG_LEVEL", show_default=True),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@_options
@telling
def run(*, log_format: LogFormat, log_level: str, **chosen: Any) -> None:
    """Run a rules folder: all rooms in one process, on the embedded log or on Kafka.

    It takes uplinks at http://HOST:PORT/in/{tenant}/{integration}. Ctrl-C (or SIGTERM) stops it:
    what is under way is finished, the rest is in the log and goes on at the next start.

    \b
    Examples:
      funicular run
      funicular run --rules acme/ --rules umbrella/ --data /var/lib/funicular --port 8443
      funicular run --log kafka://localhost:9092
      funicular run --allow-network loopback --allow-network 10.20.0.0/16
    """
    from pipeline.logs import configure_logs
    from pipeline.settings import Settings

    configure_logs(log_format, log_level)
    _serve(Settings(**chosen))


@click.command()
@click.argument(
    "rooms",
    nargs=-1,
    required=True,
    type=click.Choice(["ingest", "convert", "route", "downlink", "sink"]),
)
@_options
@telling
def worker(*, rooms: tuple[str, ...], log_format: LogFormat, log_level: str, **chosen: Any) -> None:
    """Run some ROOMS of the pipeline on Kafka; any number of workers share the work.

    A worker without `ingest` answers /healthz, /readyz and /metrics at its port.

    \b
    Examples:
      funicular worker convert route --log kafka://localhost:9092 --port 8081
      funicular worker ingest --log kafka://localhost:9092 --host 0.0.0.0
    """
    from pipeline.logs import configure_logs
    from pipeline.settings import Settings

    configure_logs(log_format, log_level)
    _serve(Settings(**chosen), rooms)


def _serve(settings: Settings, rooms: tuple[str, ...] | None = None) -> None:
    import asyncio
    import signal

    from pipeline.wiring import ROOMS, Funicular, run_loop

    async def serve() -> None:
        pipeline = Funicular(settings, rooms=rooms or ROOMS)
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked.set)
        stop = asyncio.ensure_future(asked.wait())
        started = asyncio.ensure_future(pipeline.start())
        # It may wait long for its first rules.
        await asyncio.wait([started, stop], return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await asyncio.wait([started])
            return
        started.result()
        try:
            ended = asyncio.ensure_future(pipeline.wait())
            await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if ended.done():
                ended.result()
            ended.cancel()
        finally:
            await pipeline.stop()

    run_loop(serve())
