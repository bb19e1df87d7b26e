"""The main job on the embedded log: TTN v2 uplinks in the log → all stages committed.

    python tests/bench/main_job.py [--uplinks 20000] [--runs 5]

A 400-byte uplink of one of 2,000 devices, decoded by the demo's JavaScript codec, through the
demo's chain (four nodes with expressions), one delivery a message, an attribute and a downlink
where it is too warm (one in ten). Door and sinks are not part of it. Prints the median, and the
CPU time of this process and its script process by message.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from base64 import b64encode
from pathlib import Path

import orjson

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.record import (
    CE_ID,
    CE_INTEGRATION,
    CE_SPECVERSION,
    CE_TENANT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    UPLINK_RECEIVED_TYPE,
    Outgoing,
)
from pipeline.script import ScriptLimits, ScriptProcesses
from pipeline.stream.engine import SqliteEngine
from pipeline.stream.sqlite import SqliteLog
from pipeline.wiring import load_rules, stages

DEVICES = 2_000
ROOT = Path(__file__).parents[2]


def uplinks(count: int) -> list[Outgoing]:
    """Return records as the door makes them."""
    records = []
    for n in range(count):
        tenths = 260 if n % 10 == 0 else 225
        payload = tenths.to_bytes(2, "big") + bytes([90, n // DEVICES & 1])
        body = {
            "app_id": "bench",
            "dev_id": f"dev-{n % DEVICES}",
            "hardware_serial": f"{n % DEVICES:016X}",
            "port": 1,
            "counter": n // DEVICES,
            "payload_raw": b64encode(payload).decode(),
            "metadata": {
                "time": "2026-11-21T10:00:00.123456789Z",
                "frequency": 868.1,
                "modulation": "LORA",
                "data_rate": "SF7BW125",
                "coding_rate": "4/5",
                "gateways": [
                    {"gtw_id": "eui-b827ebfffe8db887", "rssi": -25, "snr": 5, "channel": 0}
                ],
            },
            "downlink_url": "http://127.0.0.1:9/down?key=k",
        }
        headers = {
            CE_SPECVERSION: "1.0",
            CE_ID: f"{n:032x}",
            CE_TYPE: UPLINK_RECEIVED_TYPE,
            CE_TIME: "2026-11-21T10:00:00Z",
            CE_TENANT: "demo",
            CE_INTEGRATION: "ttn-thermostats",
            CONTENT_TYPE: "application/json",
        }
        key = f"demo/bench:dev-{n % DEVICES}"
        records.append(Outgoing(topics.UPLINK_RECEIVED, key, orjson.dumps(body), headers))
    return records


def cpu_s() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    own, ended = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def run(records: list[Outgoing]) -> tuple[float, float]:
    """Return seconds and CPU seconds of one run."""
    metrics = Registry()
    with tempfile.TemporaryDirectory() as folder:
        scripts = ScriptProcesses(ScriptLimits(), metrics)
        books = load_rules([ROOT / "rules"], scripts, os.environ)
        with SqliteLog.open(Path(folder) / "bench.db", metrics=metrics) as log:
            for start in range(0, len(records), 2_000):
                log.append_blocking(records[start : start + 2_000])
            engine = SqliteEngine(log, stages(lambda: books, scripts, metrics), metrics=metrics)
            cpu, wall = cpu_s(), time.perf_counter()
            engine.start()
            assert engine.drain(600)
            wall = time.perf_counter() - wall
            engine.stop()
            scripts.close()
            cpu = cpu_s() - cpu
            routed = metrics.values("funicular_stage_records_total")
            assert routed[("stage", "convert"),] == len(records)
            assert not metrics.values("funicular_dead_letters_total")
    return wall, cpu


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--uplinks", type=int, default=20_000)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    records = uplinks(chosen.uplinks)
    size = sum(len(record.value or b"") for record in records) / len(records)
    results = [run(records) for _ in range(chosen.runs)]
    rates = [chosen.uplinks / wall for wall, _ in results]
    cpus = [cpu / chosen.uplinks * 1e6 for _, cpu in results]
    print(f"{chosen.uplinks} uplinks of {size:.0f} bytes, {chosen.runs} runs")  # noqa: T201
    print(  # noqa: T201
        f"uplinks/s: median {statistics.median(rates):,.0f}"
        f" (min {min(rates):,.0f}, max {max(rates):,.0f})"
    )
    print(f"CPU µs an uplink: median {statistics.median(cpus):.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
