"""What a delivery costs that leaves by the `http` sink: requests a second, CPU of each.

    python -m tests.bench.http_sink [--requests 20000] [--runs 5] [--concurrency 8] [--signed]

The sink alone, as a destination calls it, on the worker's loop (uvloop); the receiver is a child
process that answers at once, so that the CPU is the sender's alone. Medians of the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from ipaddress import ip_network
from typing import Any

import uvloop

from pipeline.model.delivery import Delivery
from pipeline.sink.http import HttpConfig, HttpSink
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Verdict

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver(asyncio.Protocol):
    """Answers each request as soon as its head and body are there."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            start = head.index(b"content-length:") + 15
            length = int(head[start:].split(b"\r\n", 1)[0])
            if len(self._read) < end + 4 + length:
                return
            self._read = self._read[end + 4 + length :]
            self._transport.write(ANSWER)


def receive(pipe: Any) -> None:
    """Serve until the pipe says anything."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Receiver, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        server.close()

    uvloop.run(main())


def delivery(number: int) -> Delivery:
    """Return one of about 350 bytes."""
    body = {
        "device": {"name": f"acme:device-{number % 500}", "type": "thermostat"},
        "telemetry": {"temperature": 21.5 + number % 7, "humidity": 40, "battery": 3.61},
        "metadata": {"site": "Amsterdam", "f_port": 2, "f_cnt": number, "rssi": -97, "snr": 7.5},
        "attributes": {"shared": {"target": 21}, "client": {"version": "1.4.2"}},
        "time": 1_760_000_000_000 + number,
    }
    return Delivery(
        f"0199c5d0f1c87b3c9f5d{number:012d}", "acme", f"device-{number % 500}", "app", number, body
    )


async def once(port: int, requests: int, concurrency: int, *, signed: bool) -> tuple[float, float]:
    """Return seconds and CPU seconds of so many requests."""
    settings = SinkSettings(allowed_networks=(ip_network("127.0.0.0/8"),))
    more = {"sign": [SECRET]} if signed else {}
    config = HttpConfig(url=f"http://127.0.0.1:{port}/devices/{{device}}/messages", **more)
    sink = HttpSink(config, Context("acme", "app", settings, lambda: time.time_ns() // 1_000_000))
    await sink.open()
    numbers = iter(range(requests))

    async def send() -> None:
        for number in numbers:
            (result,) = await sink.deliver([delivery(number)])
            assert result.verdict is Verdict.DELIVERED

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(send() for _ in range(concurrency)))
    took = time.perf_counter() - began, time.process_time() - used
    await sink.close()
    return took


def main() -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--signed", action="store_true")
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=receive, args=(theirs,), daemon=True)
    child.start()
    port = ours.recv()
    figures = [
        uvloop.run(once(port, asked.requests, asked.concurrency, signed=asked.signed))
        for _ in range(asked.runs)
    ]
    ours.send("done")
    child.join()
    took, used = (
        statistics.median(column) / asked.requests for column in zip(*figures, strict=True)
    )
    sys.stdout.write(f"{1 / took:,.0f} requests/s, {used * 1e6:.0f} µs of CPU a request\n")


if __name__ == "__main__":
    main()
