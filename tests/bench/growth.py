"""What a message costs as things grow: chains that do not match, devices, partitions; and memory.

    python -m tests.bench.growth [--only chains|devices|partitions|memory] [--devices-max 1000000]

CPU time a message of this process, the lower quartile over batches. `chains`: the route stage with
1 to 200 chains beside the one that matches. `devices`: the whole job on the embedded log, its last
batches where all devices are known and each is another one. `partitions`: the stages over as many
partitions, one batch of each in turn. `memory`: what the job's process holds with 100,000 devices.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog

from pipeline.interpreter import tune_interpreter
from pipeline.metrics import Registry
from pipeline.model.record import Record
from pipeline.ports import Batch, DeviceState
from pipeline.route.stage import Route
from pipeline.stream.settings import MIB
from tests.bench.main_job import engine, prepare, uplinks_from
from tests.bench.peers.processes import resident_bytes
from tests.bench.route import FILTERS, HEAD, REMEMBER, SEND
from tests.unit.route.bench import START_MS, record, rulebook, uplink

CHAINS = (0, 1, 10, 50, 200)
DEVICES = (1_000, 10_000, 100_000, 1_000_000)
PARTITIONS = (1, 4, 16, 64)
MEMORY_DEVICES = 100_000
BATCH = 1_000
BATCHES = 12
BATCH_OF_A_PARTITION = 250

State = dict[str, dict[str, Any]]


def quartile(taken: list[float]) -> float:
    """Return the lower quartile in µs a message."""
    return statistics.quantiles(taken, n=4)[0] * 1e6


def messages(number: int, devices: range) -> list[Record]:
    """Return a message of each device."""
    return [
        record(
            uplink(
                number,
                id=f"0197{number:08x}{device:020x}.0",
                device=f"dev{device}",
                telemetry={"temperature": 31 + number % 7, "battery": 90},
            )
        )
        for device in devices
    ]


def take(stage: Route, parts: State, number: int, partition: int, devices: range) -> float:
    """Have the stage handle a batch; return the CPU time a message."""
    batch = Batch(partition=partition, records=messages(number, devices))
    state = DeviceState(lambda key: parts[key])
    before = time.process_time()
    stage.handle(batch, state, START_MS + number * 1_000)
    took = (time.process_time() - before) / len(devices)
    for (key, part), value in state.changes.items():
        parts[key][part] = value
    return took


def by_chains() -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield a measurement for each number of chains that do not match."""
    for others in CHAINS:
        chains = [HEAD.format(name=f"x{n}", type="other") + FILTERS for n in range(others)]
        chains.append(HEAD.format(name="main", type="thermostat") + FILTERS + REMEMBER + SEND)
        book = rulebook(*chains)
        stage = Route(lambda book=book: {"t": book}, Registry())
        parts: State = defaultdict(dict)

        def measure(stage: Route = stage, parts: State = parts) -> float:
            taken = [take(stage, parts, n, 0, range(BATCH)) for n in range(1, BATCHES)]
            return quartile(taken[1:])

        yield f"{others:>9,} chains that do not match", measure


def by_partitions() -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield a measurement for each number of partitions, over the same devices in all."""
    for partitions in PARTITIONS:
        book = rulebook(HEAD.format(name="main", type="thermostat") + FILTERS + REMEMBER + SEND)
        stage = Route(lambda book=book: {"t": book}, Registry())
        states: list[State] = [defaultdict(dict) for _ in range(partitions)]

        def measure(stage: Route = stage, states: list[State] = states) -> float:
            taken = []
            for number in (1, 2):
                for part in range(PARTITIONS[-1]):
                    first = part * BATCH_OF_A_PARTITION
                    devices = range(first, first + BATCH_OF_A_PARTITION)
                    partition = part % len(states)
                    taken.append(take(stage, states[partition], number, partition, devices))
            return quartile(taken[PARTITIONS[-1] :])

        yield f"{partitions:>9,} partitions", measure


def by_devices(most: int) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield a measurement for each number of devices, on the embedded log."""
    for devices in DEVICES:
        if devices <= most:
            yield f"{devices:>9,} devices", lambda devices=devices: whole_job(devices)


def whole_job(devices: int) -> float:
    """Return the µs of CPU an uplink once each device has been heard."""
    return quartile(job_batches(devices)[0])


def job_batches(devices: int) -> tuple[list[float], int]:
    """Return the CPU seconds an uplink of batches past the first uplink of each device, the stages
    one after the other, and how many bytes this process then holds.
    """
    more = 20 * BATCH
    metrics = Registry()
    taken: list[float] = []
    with engine([], metrics) as (made, log):
        for runner in made._runners:
            prepare(runner, log)
        waiting = uplinks_from(devices)
        for start in range(0, devices + more, BATCH):
            log.append_blocking([next(waiting) for _ in range(BATCH)])
            before = time.process_time()
            while sum(runner._step() for runner in made._runners):
                pass
            if start >= devices:
                taken.append((time.process_time() - before) / BATCH)
        held = resident_bytes(os.getpid())
        for runner in made._runners:
            runner._connection.close()
    return taken, held


def memory() -> None:
    """Print what this process and its script process hold at the end of the job with many devices,
    and the most that the process held; in a process of its own.
    """
    _, held = job_batches(MEMORY_DEVICES)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{held / MIB:.0f} MiB with the script process, {most / 1024:.0f} MiB at most")
    sys.stdout.write(f" without it, {MEMORY_DEVICES:,} devices\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("chains", "devices", "partitions", "memory"))
    parser.add_argument("--devices-max", type=int, default=100_000)
    parser.add_argument("--here", action="store_true", help="measure memory in this process")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tune_interpreter()
    if chosen.here:
        memory()
        return
    found = {
        "chains": by_chains(),
        "partitions": by_partitions(),
        "devices": by_devices(chosen.devices_max),
    }
    for name, measurements in found.items():
        for title, measure in measurements if chosen.only in (None, name) else ():
            sys.stdout.write(f"{measure():8.1f} µs  {title}\n")
            sys.stdout.flush()
    if chosen.only in (None, "memory"):
        here = [sys.executable, "-m", "tests.bench.growth", "--here"]
        subprocess.run(here, check=True, cwd=Path(__file__).parents[2])


if __name__ == "__main__":
    main()
