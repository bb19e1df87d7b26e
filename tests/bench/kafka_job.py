"""The main job on Kafka, all stages in this process: for profiles. `compare` has the figures.

    python -m tests.bench.kafka_job [--uplinks 100000] [--runs 3] [--devices 2000] [--partitions 4]
                                    [--batch N …] [--threads]

Starts one broker. Uplinks wait in `uplink.received`; measured until no stage has any left. Prints
the medians of uplinks a second and of CPU time an uplink, of this process and its script process,
for each size of batches (`records_max`) that was asked for, in turn; and the most memory that the
process had until then, so that sizes are given from the smallest on. With `--threads` also what
each thread took of it, by the kernel's account.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from itertools import product
from pathlib import Path

import structlog
from confluent_kafka import Producer

from pipeline import topics
from pipeline.interpreter import tune_interpreter
from pipeline.metrics import Registry
from pipeline.script import ScriptLimits, ScriptProcesses
from pipeline.stream.kafka import KafkaEngine
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_topics import create, plan
from pipeline.wiring import load_rules, stages
from tests.bench.main_job import DRAIN_S, RULES, by_stage, check, cpu_s
from tests.bench.peers.job import downlinks_of, uplink
from tests.kafka.brokers import Brokers

LOOK_S = 0.01


def fill(kafka: KafkaSettings, count: int, devices: int) -> None:
    """Append the uplinks."""
    producer = Producer(kafka.confluent() | {"partitioner": "murmur2_random", "linger.ms": 20})
    topic = kafka.topic(topics.UPLINK_RECEIVED)
    for number in range(count):
        each = uplink(number, devices, "js")
        while True:
            try:
                producer.produce(topic, each.value, each.key, headers=each.headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def by_thread() -> dict[str, float]:
    """Return the CPU seconds of each thread until now, by its name; those of one name as one."""
    names = {str(each.native_id): each.name for each in threading.enumerate()}
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        called, _, rest = (task / "stat").read_text().rpartition(")")
        used = rest.split()[11:13]
        found[names.get(task.name, called.partition("(")[2])] += sum(map(int, used)) / ticks
    return found


def run(
    kafka: KafkaSettings, limits: KafkaEngineSettings, count: int, devices: int, folder: Path
) -> tuple[float, float, dict[str, float]]:
    """Return seconds, CPU seconds, and those by thread, of one run on topics of its own."""
    metrics = Registry()
    scripts = ScriptProcesses(ScriptLimits(), metrics)
    books = load_rules([RULES], scripts, os.environ)
    create(kafka, plan(kafka, books.values()))
    fill(kafka, count, devices)
    made = stages(lambda: books, scripts, metrics)
    last = downlinks_of(count, devices)  # counted once: to count them takes the interpreter's lock
    engine = KafkaEngine(kafka, made, limits, metrics, state_folder=folder)
    cpu, wall, before = cpu_s(), time.perf_counter(), by_thread()
    engine.start()
    while by_stage(metrics)["downlink"] < last and time.perf_counter() - wall < DRAIN_S:
        time.sleep(LOOK_S)
        if engine.failed.done():
            engine.failed.result()
    wall = time.perf_counter() - wall
    threads = {name: used - before.get(name, 0.0) for name, used in by_thread().items()}
    engine.stop()
    scripts.close()
    cpu = cpu_s() - cpu
    check(metrics, count, devices)
    threads["script process, start, end"] = cpu - sum(threads.values())
    return wall, cpu, threads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uplinks", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--partitions", type=int, default=4)
    usual = KafkaEngineSettings().records_max
    parser.add_argument("--batch", type=int, nargs="+", default=[usual])
    parser.add_argument("--threads", action="store_true")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tune_interpreter()
    results: dict[int, list[tuple[float, float, dict[str, float]]]] = {
        size: [] for size in chosen.batch
    }
    most_mib: dict[int, float] = {}
    with Brokers.start(1) as brokers, tempfile.TemporaryDirectory() as folder:
        for number, size in product(range(chosen.runs), chosen.batch):
            name = f"run{number}-{size}-"
            kafka = KafkaSettings(
                bootstrap=brokers.bootstrap, prefix=name, partitions=chosen.partitions
            )
            limits = KafkaEngineSettings(records_max=size)
            place = Path(folder) / name
            results[size].append(run(kafka, limits, chosen.uplinks, chosen.devices, place))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
            most_mib.setdefault(size, peak)
    for size, taken in results.items():
        rate = statistics.median(chosen.uplinks / wall for wall, _, _ in taken)
        cpu_us = statistics.median(cpu / chosen.uplinks * 1e6 for _, cpu, _ in taken)
        sys.stdout.write(
            f"batches of {size}: {rate:,.0f} uplinks/s, CPU {cpu_us:.1f} µs an uplink,"
            f" at most {most_mib[size]:.0f} MiB\n"
        )
        if chosen.threads:
            _print_threads([threads for _, _, threads in taken], chosen.uplinks)


def _print_threads(runs: list[dict[str, float]], uplinks: int) -> None:
    names = {name for threads in runs for name in threads}
    used = {name: statistics.median(each.get(name, 0.0) for each in runs) for name in names}
    for name in sorted(names, key=used.__getitem__, reverse=True):
        sys.stdout.write(f"  {used[name] / uplinks * 1e6:6.1f} µs  {name}\n")


if __name__ == "__main__":
    main()
