"""`funicular demo`: the whole pipeline beside a simulated fleet, live in the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.speaking import FAILED, FOLDER, telling

if TYPE_CHECKING:
    from pipeline.demo.process import Demo
    from pipeline.settings import Settings

_FRAME_S = 0.25


@click.command()
@click.option("--rules", "-r", type=FOLDER, default="rules", show_default=True,
              help="The rules folder; the fleet fits the one given with it.")  # fmt: skip
@click.option("--data", type=FOLDER, help="Keep the log here; a temporary folder if left away.")
@click.option("--port", default=8080, show_default=True, envvar="FUNICULAR_PORT",
              type=click.IntRange(0, 65_535),
              help="The port to listen on; 0: any free one.")  # fmt: skip
@click.option("--devices", default=24, show_default=True, help="How many devices, of three kinds.")
@click.option("--rate", default=40.0, show_default=True, help="Uplinks a second, about.")
@click.option("--seed", default=1, show_default=True, help="Another seed, another fleet.")
@click.option("--seconds", type=float, help="Stop by itself after so long.")
@click.option("--until-closed", is_flag=True,
              help="Stop once devices of all three kinds were told and obeyed.")  # fmt: skip
@click.option("--plain", is_flag=True, help="Plain lines also on a terminal.")
@telling
def demo(
    *,
    rules: Path,
    data: Path | None,
    port: int,
    devices: int,
    rate: float,
    seed: int,
    seconds: float | None,
    until_closed: bool,
    plain: bool,
) -> None:
    """See it work: a simulated fleet on simulated network servers, over real HTTP.

    Thermostats warm up, trackers move, meters run hot; a rule notices, an attribute changes, a
    downlink leaves, and the device obeys. Ctrl-C stops it.

    \b
    Examples:
      funicular demo
      funicular demo --devices 200 --rate 500
      funicular demo --plain --until-closed
    """
    from pipeline.demo.process import Demo
    from pipeline.logs import configure_logs
    from pipeline.settings import Settings
    from pipeline.sink.addresses import LOOPBACK

    with tempfile.TemporaryDirectory(prefix="funicular-demo-") as temporary:
        folder = data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "demo.log").open("a", encoding="utf-8") as log:
            configure_logs("json", "info", log)
            fleet = Demo(devices=devices, rate=rate, seed=seed)
            fleet.start()
            try:
                settings = Settings(
                    rules=(rules,), data=folder, port=port, allowed_networks=LOOPBACK
                )
                closed = _show(settings, fleet, seconds, plain=plain or None, until=until_closed)
            finally:
                fleet.stop()
    if until_closed and not closed:
        sys.exit(FAILED)


def _show(
    settings: Settings, fleet: Demo, seconds: float | None, *, plain: bool | None, until: bool
) -> bool:
    """Run the pipeline and the view; return whether all loops were seen closed."""
    import asyncio
    import signal
    from time import monotonic

    from pipeline.demo.feed import LogFeed
    from pipeline.demo.view import View
    from pipeline.wiring import Funicular, run_loop

    closed = False

    async def show() -> None:
        nonlocal closed
        pipeline = Funicular(settings, env={**os.environ, **fleet.env})
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked.set)
        await pipeline.start()
        ended = asyncio.ensure_future(pipeline.wait())
        deadline = monotonic() + (seconds or float("inf"))
        try:
            assert pipeline.door is not None
            address = pipeline.door.address
            fleet.begin(address)
            feed = LogFeed(pipeline.log, pipeline.metrics, next(iter(pipeline.books)))
            view = View(feed, fleet.addresses, funicular=address, plain=plain)
            with view:
                while not asked.is_set() and not ended.done() and monotonic() < deadline:
                    await asyncio.sleep(_FRAME_S)
                    fleet.check()
                    view.update()
                    closed = view.all_closed
                    if until and closed:
                        break
            if ended.done():
                ended.result()
            view.summary()
        finally:
            ended.cancel()
            await pipeline.stop()

    run_loop(show())
    return closed
