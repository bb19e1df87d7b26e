"""`funicular run`: the whole pipeline in one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.speaking import data_option, rules_option, telling

if TYPE_CHECKING:
    from pipeline.settings import LogFormat, Settings


@click.command()
@rules_option
@data_option
@click.option("--host", default="127.0.0.1", envvar="FUNICULAR_HOST", show_default=True,
              help="The address to listen on; other than loopback the API needs keys.")  # fmt: skip
@click.option("--port", default=8080, type=click.IntRange(0, 65_535), envvar="FUNICULAR_PORT",
              show_default=True, help="The port to listen on; 0: any free one.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["auto", "text", "json"]), default="auto",
              envvar="FUNICULAR_LOG_FORMAT", show_default=True)  # fmt: skip
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              default="info", envvar="FUNICULAR_LOG_LEVEL", show_default=True)  # fmt: skip
@telling
def run(
    *,
    rules: tuple[Path, ...],
    data: Path,
    host: str,
    port: int,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Run a rules folder on this machine, on the embedded log.

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
