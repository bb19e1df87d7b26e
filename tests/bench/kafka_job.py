"""The main job on Kafka, all stages in this process: for profiles. `compare` has the figures.

    python -m tests.bench.kafka_job [--uplinks 100000] [--runs 3] [--devices 2000] [--partitions 4]
                                    [--batch N …]

Starts one broker. Uplinks wait in `uplink.received`; measured until no stage has any left. Prints
the medians of uplinks a second and of CPU time an uplink, of this process and its script process,
for each size of batches (`records_max`) that was asked for, in turn; and the most memory that the
process had until then, so that sizes are given from the smallest on.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
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


def run(
    kafka: KafkaSettings, limits: KafkaEngineSettings, count: int, devices: int, folder: Path
) -> tuple[float, float]:
    """Return seconds and CPU seconds of one run, on topics of its own."""
    metrics = Registry()
    scripts = ScriptProcesses(ScriptLimits(), metrics)
    books = load_rules([RULES], scripts, os.environ)
    create(kafka, plan(kafka, books.values()))
    fill(kafka, count, devices)
    made = stages(lambda: books, scripts, metrics)
    last = downlinks_of(count, devices)  # counted once: to count them takes the interpreter's lock
    engine = KafkaEngine(kafka, made, limits, metrics, state_folder=folder)
    cpu, wall = cpu_s(), time.perf_counter()
    engine.start()
    while by_stage(metrics)["downlink"] < last and time.perf_counter() - wall < DRAIN_S:
        time.sleep(LOOK_S)
        if engine.failed.done():
            engine.failed.result()
    wall = time.perf_counter() - wall
    engine.stop()
    scripts.close()
    cpu = cpu_s() - cpu
    check(metrics, count, devices)
    return wall, cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uplinks", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--partitions", type=int, default=4)
    usual = KafkaEngineSettings().records_max
    parser.add_argument("--batch", type=int, nargs="+", default=[usual])
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tune_interpreter()
    results: dict[int, list[tuple[float, float]]] = {size: [] for size in chosen.batch}
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
        rate = statistics.median(chosen.uplinks / wall for wall, _ in taken)
        cpu_us = statistics.median(cpu / chosen.uplinks * 1e6 for _, cpu in taken)
        sys.stdout.write(
            f"batches of {size}: {rate:,.0f} uplinks/s, CPU {cpu_us:.1f} µs an uplink,"
            f" at most {most_mib[size]:.0f} MiB\n"
        )


if __name__ == "__main__":
    main()
