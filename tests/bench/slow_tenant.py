"""What another tenant's answers take while one tenant's scripts use up all the time they may.

    python -m tests.bench.slow_tenant [--seconds 10] [--slow-per-s 100]

The real program with two tenants on the embedded log. The quick one asks 20 times a second and
waits for each answer; the slow one's uplinks take 90 ms each in a script, which is below the limit
of a call, and come much faster than that. Prints the quick one's latencies, without and with the
other, and what became of the slow one's uplinks.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp

from tests.process.program import Program

QUICK = "function Decoder(p, m) { return {deviceName: 'q', deviceType: 't', telemetry: {n: 1}} }"
SLOW = (
    "function Decoder(p, m) { var end = Date.now() + 90; while (Date.now() < end);"
    " return {deviceName: 's', deviceType: 't', telemetry: {n: 1}} }"
)


def rules(folder: Path, tenant: str, script: str, *, waits: bool) -> Path:
    """Write a tenant's rules: one integration, one converter."""
    root = folder / tenant
    (root / "integrations").mkdir(parents=True)
    (root / "converters/acme").mkdir(parents=True)
    (root / "funicular.yaml").write_text(f"tenant: {tenant}\n")
    (root / "integrations/in.yaml").write_text(
        "dialect: http\nauthentication: open\nconverter: acme/x\n"
        f"synchronous: {str(waits).lower()}\nanswer_timeout: 60s\n"
    )
    (root / "converters/acme/x.yaml").write_text(
        "contract: thingsboard\nuplinkDecoder: {fileName: x.js}\n"
    )
    (root / "converters/acme/x.js").write_text(script)
    return root


async def asked(session: aiohttp.ClientSession, url: str, seconds: float) -> list[float]:
    """Return how long each answer took, of 20 requests a second."""

    async def one() -> float:
        began = time.perf_counter()
        async with session.post(f"{url}/in/quick/in", json={"a": 1}) as answer:
            await answer.read()
        return time.perf_counter() - began

    tasks = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0.05)
    return await asyncio.gather(*tasks)


async def flood(session: aiohttp.ClientSession, url: str, per_s: int) -> None:
    """Send the slow tenant's uplinks until it is cancelled."""
    while True:
        async with session.post(f"{url}/in/slow/in", json={"a": 1}) as answer:
            await answer.read()
        await asyncio.sleep(1 / per_s)


def shown(took: list[float]) -> str:
    """Return the latencies in one line."""
    hundredths = statistics.quantiles(took, n=100)
    parts = (hundredths[49], hundredths[98], max(took))
    p50, p99, longest = (f"{each * 1000:,.0f}" for each in parts)
    return f"{len(took)} answers: p50 {p50} ms, p99 {p99} ms, longest {longest} ms"


async def measure(seconds: float, per_s: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        quick = rules(root, "quick", QUICK, waits=True)
        slow = rules(root, "slow", SLOW, waits=False)
        program = Program(quick, root / "data", command=("run", "--rules", str(slow)))
        async with aiohttp.ClientSession() as session:
            with program:
                await program.ready(session)
                await asked(session, program.url, 1)
                say("alone: " + shown(await asked(session, program.url, seconds)))
                flooding = asyncio.create_task(flood(session, program.url, per_s))
                await asyncio.sleep(2)
                say("beside: " + shown(await asked(session, program.url, seconds)))
                flooding.cancel()
                async with session.get(f"{program.url}/metrics") as answer:
                    lines = (await answer.text()).splitlines()
        for line in lines:
            if line.startswith("funicular_dead_letters_total{"):
                say(line)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what a benchmark is for


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--slow-per-s", type=int, default=100)
    given = parser.parse_args()
    asyncio.run(measure(given.seconds, given.slow_per_s))


if __name__ == "__main__":
    main()
