"""How many deliveries a second each sink transport takes, and our CPU of one.

    python -m tests.bench.sinks [--deliveries 20000] [--runs 3] [--only mqtt,redis]

Each transport as a destination calls it, with its own default batch, on the worker's loop (uvloop),
against the real server on the same machine (moto's for s3, whose own work is in the figure; a
server that answers at once for influxdb is InfluxDB 1). Bodies are messages of 560 bytes of 500
devices. Medians of the runs; CPU is this process's alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvloop

from pipeline.model.delivery import Delivery, Origin
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Transport, Verdict, transports
from tests.real.sink_servers import (
    Influxdb,
    Kafka,
    Mqtt,
    ObjectStore,
    Postgresql,
    Rabbitmq,
    Redis,
    SinkServers,
)

NOW_MS = 1_790_000_000_000
METADATA = {
    "application_id": "app1",
    "device_id": "dev1",
    "frequency": 868300000,
    "spreading_factor": 7,
    "rssi": -35,
    "snr": 5.2,
    "rx_metadata": [{"gateway_ids": {"gateway_id": "gtw1"}, "rssi": -35, "snr": 5.2}],
}


def _influxdb(servers: SinkServers) -> dict[str, Any]:
    url = f"http://127.0.0.1:{servers[Influxdb].port}"
    httpx.post(f"{url}/query", params={"q": "CREATE DATABASE bench"}).raise_for_status()
    return {"url": url, "database": "bench"}


CONFIGS: dict[str, Callable[[SinkServers], dict[str, Any]]] = {
    "file": lambda _: {"path": "bench.jsonl"},
    "mqtt": lambda servers: {
        "server": f"mqtt://127.0.0.1:{servers[Mqtt].port}",
        "topic": "bench/{device}",
    },
    "postgresql": lambda servers: {
        "url": f"postgresql://postgres@127.0.0.1:{servers[Postgresql].port}/postgres"
    },
    "kafka": lambda servers: {
        "servers": servers[Kafka].bootstrap,
        "topic": servers[Kafka].topic("bench"),
    },
    "redis": lambda servers: {
        "url": f"redis://127.0.0.1:{servers[Redis].port}",
        "stream": "bench",
    },
    "amqp": lambda servers: {
        "url": f"amqp://guest:guest@127.0.0.1:{servers[Rabbitmq].port}/",
        "exchange": "bench",
        "declare": "topic",
        "mandatory": False,
    },
    "influxdb": _influxdb,
    "s3": lambda servers: {
        "url": servers[ObjectStore].url,
        "bucket": "bucket",
        "access_key": "access",
        "secret_key": "secret",
        "records": 2_500,
        "every": 0.05,
    },
}


def deliveries(run: int, count: int) -> list[Delivery]:
    """Return as many, which no earlier run had."""
    origin = Origin(type="uplink", integration="in-1", device_type="thermostat", f_port=1)
    return [
        Delivery(
            f"r{run}-{n}",
            "acme",
            f"dev{n % 500}",
            "app",
            NOW_MS + n,
            {
                "id": f"r{run}-{n}",
                "device": f"dev{n % 500}",
                "device_type": "thermostat",
                "integration": "in-1",
                "type": "uplink",
                "time": "2026-09-21T14:13:20.000Z",
                "telemetry": {"temperature": 21.5, "humidity": 40, "battery": 3.1},
                "metadata": METADATA,
            },
            origin=origin,
        )
        for n in range(count)
    ]


async def one_run(transport: Transport, todo: list[Delivery]) -> tuple[float, float]:
    """Return deliveries a second, and microseconds of CPU of each."""
    size = transport.deliveries_max
    started, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(todo), size):
        results = await transport.deliver(todo[start : start + size])
        assert all(result.verdict is Verdict.DELIVERED for result in results), results[0]
    used, spent = time.process_time() - cpu, time.perf_counter() - started
    return len(todo) / spent, used / len(todo) * 1e6


async def measure(name: str, config: dict[str, Any], count: int, runs: int, folder: Path) -> None:
    """Print the medians of one transport."""
    kind = transports()[name]
    settings = SinkSettings(folder=folder, allowed_networks=LOOPBACK)
    context = Context("acme", "app", settings, lambda: time.time_ns() // 1_000_000)
    transport = kind(kind.Config.model_validate(config), context)
    await transport.open()
    await one_run(transport, deliveries(0, min(count, 2_000)))  # connections and caches
    found = [await one_run(transport, deliveries(run + 1, count)) for run in range(runs)]
    await transport.close()
    rate, cpu = (statistics.median(column) for column in zip(*found, strict=True))
    sys.stdout.write(f"{name:12} {transport.deliveries_max:6} {rate:12,.0f} {cpu:10.1f}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure all, or those that `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(CONFIGS))
    asked = parser.parse_args()
    servers = SinkServers()
    sys.stdout.write(f"{'transport':12} {'batch':>6} {'deliveries/s':>12} {'CPU us':>10}\n")
    try:
        with TemporaryDirectory() as folder:
            for name in asked.only.split(","):
                config = CONFIGS[name](servers)
                work = measure(name, config, asked.deliveries, asked.runs, Path(folder))
                uvloop.run(work)
    finally:
        servers.remove()


if __name__ == "__main__":
    main()
