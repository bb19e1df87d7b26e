"""All simulated servers together, in one event loop with a Funicular that takes notes."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from pipeline.demo.fleet import KINDS
from pipeline.demo.servers import Simulation, SimulationSettings


async def test_fleet_reports_to_each_integration(
    receiver: Any, session: aiohttp.ClientSession
) -> None:
    """Once Funicular is ready, all kinds of devices report, each to its integration with its
    key, and `/state` tells how they stand.
    """
    simulation = Simulation(SimulationSettings(devices=6, rate=500, window_s=0))
    await simulation.listen("127.0.0.1", 0)
    running = asyncio.create_task(simulation.run(receiver.url))
    paths = {f"/in/demo/{name}" for name in ("ttn-thermostats", "tts-trackers", "sigfox-meters")}
    async with asyncio.timeout(10):
        while set(receiver.paths) != paths or len(receiver.requests) < 20:
            receiver.came.clear()
            await receiver.came.wait()
    async with session.get(simulation.addresses()["state"]) as answer:
        state = await answer.json()
    running.cancel()
    await simulation.close()

    keys = {
        path: request.headers["authorization"]
        for path, request in zip(receiver.paths, receiver.requests, strict=True)
    }
    assert keys == {
        "/in/demo/ttn-thermostats": "demo-key",
        "/in/demo/tts-trackers": "Bearer demo-key",
        "/in/demo/sigfox-meters": "Basic c2lnZm94OmRlbW8ta2V5",
    }
    assert {device["kind"] for device in state["devices"].values()} == set(KINDS)
    assert set(state["devices"]) == {
        "acme:thermostat-1", "acme:thermostat-2", "acme:tracker-1", "acme:tracker-2",
        "4D0001", "4D0002",
    }  # fmt: skip
    assert sum(server["sent"] for server in state["servers"].values()) >= 19
    assert simulation.lost == 0


async def test_too_many_at_once_are_lost_and_counted(receiver: Any, monkeypatch: Any) -> None:
    """With no room for another uplink on its way, the device has sent it in vain."""
    monkeypatch.setattr("pipeline.demo.servers.IN_FLIGHT_MAX", 0)
    simulation = Simulation(SimulationSettings(devices=3, rate=500))
    await simulation.listen("127.0.0.1", 0)
    running = asyncio.create_task(simulation.run(receiver.url))
    async with asyncio.timeout(10):
        while not receiver.requests:
            await receiver.came.wait()
        (thermostat,) = simulation.fleet.thermostats
        simulation._begin(simulation._servers[0].uplink, thermostat)
    running.cancel()
    await simulation.close()

    assert simulation.lost >= 1
    assert thermostat.reports >= 1
    assert [path for path in receiver.paths if "ttn" in path] == []


async def test_fault_in_the_simulation_ends_it(receiver: Any) -> None:
    """A device that breaks is not passed over in silence: `run` raises what it raised."""
    simulation = Simulation(SimulationSettings(devices=3, rate=500))
    await simulation.listen("127.0.0.1", 0)

    def break_down(minute: float) -> bytes:
        raise RuntimeError(f"broken at minute {minute}")

    simulation.fleet.meters[0].report = break_down  # type: ignore[method-assign]
    caught: BaseException | None = None
    try:
        async with asyncio.timeout(10):
            await simulation.run(receiver.url)
    except RuntimeError as error:
        caught = error
    finally:
        await simulation.close()

    assert "broken" in str(caught)
