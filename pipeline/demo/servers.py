"""The simulated network servers, their fleet and the application, in a process of their own.

In: `python -m pipeline.demo.servers --funicular http://127.0.0.1:8080 …`; downlinks and messages
over HTTP. Out: one JSON line on stdout with the addresses, once they listen; then, when Funicular
is ready, uplinks. `GET /state` tells how devices and counters stand. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import click
import orjson
from aiohttp import web

from pipeline.demo.application import Application
from pipeline.demo.callbacks import Callbacks, Clock
from pipeline.demo.fleet import DEVICES_MAX, KINDS, Device, Fleet, minute_s
from pipeline.demo.sigfox import ANSWER_TIMEOUT_S, Sigfox, authorization
from pipeline.demo.ttn_v2 import TtnV2
from pipeline.demo.tts_v3 import PATH, TtsV3

APPLICATION = "acme"  # the application's id on both LoRaWAN network servers
IN_FLIGHT_MAX = 1_000  # uplinks on their way at once; more are lost, as in a real network server
TICK_S = 0.02
WINDOW_S = 0.25  # from a LoRaWAN uplink to its receive window; 1 to 5 s in the air
READY_EVERY_S = 0.1
STOP_TIMEOUT_S = 1.0  # for requests that are being answered

D = TypeVar("D", bound=Device)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """What an onlooker may set. `rate` is in uplinks a second, about."""

    tenant: str = "demo"
    devices: int = 24
    rate: float = 40.0
    seed: int = 1
    key: str = "demo-key"
    tts_key: str = "demo-key"
    window_s: float = WINDOW_S


class Simulation:
    """Everything around Funicular: `listen`, then `run`, then `close`, on one event loop."""

    def __init__(self, settings: SimulationSettings) -> None:
        """Make the fleet. ValueError: too few or too many devices."""
        self.settings = settings
        self.fleet = Fleet(settings.devices, settings.seed)
        self.clock = Clock(minute_s(settings.devices, settings.rate))
        self.application = Application()
        self.lost = 0  # uplinks that were too many at once
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._in_flight: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None
        self._servers: tuple[TtnV2, TtsV3, Sigfox] | None = None

    async def listen(self, host: str, port: int) -> None:
        """Open the HTTP server; `url` says where. OSError: the port is taken."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=256), cookie_jar=aiohttp.DummyCookieJar()
        )
        app = web.Application()
        self.application.serve(app)
        app.router.add_get("/state", self._state)
        self._servers = self._make(self._session)
        ttn, tts, _ = self._servers
        ttn.serve(app)
        tts.serve(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        ttn.listens_at(self.url)

    def addresses(self) -> dict[str, Any]:
        """Return what the line on stdout says."""
        return {
            "url": self.url,
            "tts": self.url + PATH,
            "application": f"{self.url}/messages",
            "state": f"{self.url}/state",
            "minute_s": self.clock.minute_s,
        }

    async def run(self, funicular: str) -> None:
        """Send uplinks to Funicular, for ever, from when it is ready; cancel it to end it."""
        assert self._servers is not None, "listen first"
        ttn, tts, sigfox = self._servers
        for server, integration in (
            (ttn, "ttn-thermostats"), (tts, "tts-trackers"), (sigfox, "sigfox-meters"),
        ):  # fmt: skip
            server.callbacks.url = f"{funicular}/in/{self.settings.tenant}/{integration}"
        await self._ready(f"{funicular}/readyz")
        self.clock.restart()
        await asyncio.gather(*(tts.join(tracker) for tracker in self.fleet.trackers))
        while self._fault is None:
            minute = self.clock.minute()
            for thermostat in self.fleet.thermostats:
                if thermostat.due <= minute:
                    self._begin(ttn.uplink, thermostat)
            for tracker in self.fleet.trackers:
                if tracker.due <= minute:
                    self._begin(tts.uplink, tracker)
            for meter in self.fleet.meters:
                if meter.due <= minute:
                    self._begin(sigfox.uplink, meter)
            await asyncio.sleep(TICK_S)
        raise self._fault

    async def close(self) -> None:
        """End what is under way, and the HTTP server."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        if self._servers is not None:
            await self._servers[1].close()
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def state(self) -> dict[str, Any]:
        """Return how devices and counters stand, as `/state` tells it."""
        assert self._servers is not None, "listen first"
        ttn, tts, sigfox = self._servers
        devices: list[tuple[str, Device, int]] = [
            *((ttn.name(device), device, ttn.waiting(device)) for device in self.fleet.thermostats),
            *((tts.name(device), device, tts.waiting(device)) for device in self.fleet.trackers),
            *((sigfox.name(device), device, 0) for device in self.fleet.meters),
        ]
        return {
            "minute": self.clock.minute(),
            "minute_s": self.clock.minute_s,
            "lost": self.lost,
            "servers": {
                "ttn_v2": {**ttn.callbacks.counts, "downlinks": ttn.downlinks},
                "tts_v3": {**tts.callbacks.counts, "downlinks": tts.downlinks},
                "sigfox": {**sigfox.callbacks.counts, **sigfox.outcomes},
            },
            "application": {
                "messages": self.application.messages,
                "repeats": self.application.repeats,
                "newest": list(self.application.newest),
            },
            "devices": {
                name: {
                    "kind": device.kind,
                    **device.state(),
                    "uplinks": device.reports,
                    "downlinks": device.received,
                    "waiting": waiting,
                }
                for name, device, waiting in devices
            },
        }

    def _make(self, session: aiohttp.ClientSession) -> tuple[TtnV2, TtsV3, Sigfox]:
        settings = self.settings
        json = {"content-type": "application/json"}
        ttn_headers = {**json, "user-agent": "http-ttn/2.6.0", "authorization": settings.key}
        tts_headers = {
            **json,
            "user-agent": "TheThingsStack/3.36.0 (linux/amd64)",
            "x-tts-domain": "localhost",
            "authorization": f"Bearer {settings.key}",
        }
        fleet, clock, window_s = self.fleet, self.clock, settings.window_s
        return (
            TtnV2(
                list(fleet.thermostats),
                Callbacks(session, ttn_headers, 10.0),
                clock,
                application=APPLICATION,
                key=settings.key,
                window_s=window_s,
            ),
            TtsV3(
                list(fleet.trackers),
                Callbacks(session, tts_headers, 5.0),
                clock,
                application=APPLICATION,
                key=settings.tts_key,
                window_s=window_s,
            ),
            Sigfox(Callbacks(session, authorization(settings.key), ANSWER_TIMEOUT_S), clock),
        )

    async def _ready(self, url: str) -> None:
        """Return when Funicular takes messages."""
        assert self._session is not None
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=5)
                async with self._session.get(url, timeout=timeout) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(READY_EVERY_S)

    def _begin(self, uplink: Callable[[D], Coroutine[Any, Any, None]], device: D) -> None:
        """Let a device report, beside what goes on."""
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            device.report(self.clock.minute())
            self.lost += 1
            return
        task = asyncio.create_task(uplink(device))
        self._in_flight.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[None]) -> None:
        """Forget a report's task; a fault in it is a fault of the simulation, and ends it."""
        self._in_flight.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = self._fault or fault

    async def _state(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.state()), content_type="application/json")


@click.command()
@click.option("--funicular", default="",
              help="Where Funicular listens, as http://127.0.0.1:8080; without it, its address"
              " comes as a line on stdin, and the end of stdin ends this.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0: any free one.")
@click.option("--tenant", default="demo", show_default=True)
@click.option("--devices", default=24, show_default=True,
              type=click.IntRange(len(KINDS), DEVICES_MAX))  # fmt: skip
@click.option("--rate", default=40.0, show_default=True, help="Uplinks a second, about.",
              type=click.FloatRange(0.1, 10_000))  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="The same seed: the same fleet.")
@click.option("--key", default="demo-key", envvar="FUNICULAR_DEMO_KEY")
@click.option("--tts-key", default="demo-key", envvar="FUNICULAR_DEMO_TTS_KEY")
def main(*, funicular: str, host: str, port: int, **settings: Any) -> None:
    """Simulate network servers with their devices, and an application."""
    simulation = Simulation(SimulationSettings(**settings))
    if not funicular:
        # Ctrl-C reaches the whole group of processes; the one that started this one ends it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(_serve(simulation, funicular, host, port))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from None


async def _serve(simulation: Simulation, funicular: str, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    if funicular:
        loop.add_signal_handler(signal.SIGINT, asked.set)
    try:
        await simulation.listen(host, port)
        sys.stdout.write(orjson.dumps(simulation.addresses()).decode() + "\n")
        sys.stdout.flush()
        running = asyncio.create_task(_simulate(simulation, funicular))
        stop = asyncio.create_task(asked.wait())
        await asyncio.wait([running, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if running.done():
            running.result()
        running.cancel()
    finally:
        await simulation.close()


async def _simulate(simulation: Simulation, funicular: str) -> None:
    """Run until stdin ends; with an address from the command line, for ever."""
    if funicular:
        await simulation.run(funicular)
        return
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    address = (await reader.readline()).decode().strip()
    if not address:
        return
    running = asyncio.create_task(simulation.run(address))
    ended = asyncio.create_task(reader.read())
    await asyncio.wait([running, ended], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()


if __name__ == "__main__":
    main()
