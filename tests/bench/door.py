"""How many uplinks a second one ingest process takes, and what CPU a request costs.

    python -m tests.bench.door [--seconds 5] [--connections 64] [--log sqlite|kafka] [--rate 7000]
                               [--warm 30] [--bare]

A real TTN v2 uplink, sent by `wrk` where it is installed (its own process, so that the figures
of CPU are the server's alone), else by a client in a child process. The log is one that keeps
nothing, so that the door alone is measured; `--log sqlite` takes the embedded one, `kafka` a
broker of its own. With `--rate` each connection pauses between its requests, so that about so
many come in all: what an answer takes when the door is not flooded. Needs `wrk`. With `--warm` it
is driven for so many seconds before, flat out: a broker compiles its code meanwhile. `--bare`
measures aiohttp in the door's place, with a handler that reads the body and parses it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from pipeline.ingest.ids import time_ordered_ids
from pipeline.ingest.ingest import Ingest
from pipeline.ingest.settings import IngestSettings
from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.model.http import Request
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Holder
from pipeline.rulebook.book import Authentication, Rulebook
from pipeline.topics import UPLINK_RECEIVED
from tests.made_integration import made_integration

PATH = "/in/bench/ttn"


class Nothing:
    """A log that is always durable, a turn of the loop later; and its reader."""

    def __init__(self) -> None:
        self.taken = 0

    async def append(self, records: Sequence[Outgoing]) -> None:
        await asyncio.sleep(0)
        self.taken += len(records)

    def read(
        self, topic: str, group: str, *, from_end: bool = False, partition: int | None = None
    ) -> Nothing:
        return self

    def partition_of(self, topic: str, key: str) -> int:
        return 0

    async def opened(self) -> None:
        pass

    def watch(self, holder: Holder) -> None:
        pass

    async def batches(self, records_max: int) -> AsyncIterator[Sequence[Record]]:
        await asyncio.Event().wait()
        yield []

    async def commit(
        self, offset: int | Mapping[int, int], records: Sequence[Outgoing] = ()
    ) -> None:
        pass

    async def close(self) -> None:
        pass


def rulebook() -> Rulebook:
    dialect = dialects()["ttn_v2"]
    integration = made_integration(
        tenant="bench",
        name="ttn",
        dialect=dialect,
        options=dialect.options(),
        authentication=Authentication("header", "Authorization", "key-of-the-bench"),
        device_template=dialect.device_template,
        body_bytes_max=1_048_576,
        device_type="bench",
    )
    return Rulebook("bench", Path(), "1", {"ttn": integration}, {}, {}, {})


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def by_wrk(
    url: str, request: Request, seconds: int, connections: int, rate: float = 0
) -> int:
    """Drive with `wrk`; return how many requests were answered 2xx."""
    quoted = "".join(f"\\{byte:03d}" for byte in request.body)
    script = f'wrk.method="POST"\nwrk.body="{quoted}"\nwrk.headers["Authorization"]='
    script += '"key-of-the-bench"\n'
    for name, value in request.headers.items():
        script += f'wrk.headers["{name}"]="{value}"\n'
    if rate:
        # Whole milliseconds are all that it takes.
        pause_ms = connections * 1_000 / rate
        script += f"function delay() return math.floor({pause_ms} + math.random()) end\n"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["-t1", f"-c{connections}", f"-d{seconds}", "-s", file.name, "--latency", url]
        process = await asyncio.create_subprocess_exec(
            "wrk", *command, stdout=asyncio.subprocess.PIPE
        )
        said = (await process.communicate())[0].decode()
    say(*(line for line in said.splitlines() if "%" in line or "Non-2xx" in line))
    done = re.search(r"(\d+) requests in", said)
    return int(done.group(1)) if done is not None and "Non-2xx" not in said else 0


def drive(port: int, head: bytes, seconds: int, connections: int, done: Any) -> None:
    """Drive from a child process, with as many connections."""

    async def one(until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.monotonic() < until:
            writer.write(head)
            answer = await reader.readuntil(b"\r\n\r\n")
            count += answer.startswith(b"HTTP/1.1 2")
        writer.close()
        return count

    async def main() -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(one(until) for _ in range(connections))))

    done.send(asyncio.run(main()))


async def by_child(port: int, request: Request, seconds: int, connections: int) -> int:
    lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", "Authorization: key-of-the-bench"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"Content-Length: {len(request.body)}", "", ""]
    head = "\r\n".join(lines).encode() + request.body
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=drive, args=(port, head, seconds, connections, theirs))
    child.start()
    count = await asyncio.to_thread(ours.recv)
    await asyncio.to_thread(child.join)
    return int(count)


async def on_kafka(stack: contextlib.ExitStack, books: Mapping[str, Rulebook]) -> Any:
    """Return a log on a broker of its own, with the topics that there are."""
    from pipeline.stream.kafka_log import KafkaLog
    from pipeline.stream.kafka_settings import KafkaSettings
    from pipeline.stream.kafka_topics import create, plan
    from tests.kafka.brokers import Brokers

    brokers = stack.enter_context(Brokers.start(1))
    kafka = KafkaSettings(bootstrap=brokers.bootstrap)
    await asyncio.to_thread(create, kafka, plan(kafka, books.values()))
    log = KafkaLog(kafka)
    await log.start([UPLINK_RECEIVED])
    return log


async def bare(arguments: argparse.Namespace) -> None:
    """Measure aiohttp's low-level server alone."""

    async def handle(request: web.BaseRequest) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(headers={"server": "bare"})

    server = web.Server(handle, access_log=None)
    sockets = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = sockets.sockets[0].getsockname()[1]
    await measured(port, arguments)
    sockets.close()
    await server.shutdown()


async def measured(port: int, arguments: argparse.Namespace) -> None:
    """Send uplinks there for a while, and say how many were taken."""
    sample = dialects()["ttn_v2"].sample("dev1", 1, b"\x01\x67\x00", 0)
    settings = (sample, arguments.seconds, arguments.connections)
    url = f"http://127.0.0.1:{port}{PATH}"
    if arguments.warm:
        await by_wrk(url, sample, arguments.warm, arguments.connections)
    used, began = cpu_s(), time.perf_counter()
    if shutil.which("wrk"):
        count = await by_wrk(url, *settings, arguments.rate)
    else:
        count = await by_child(port, *settings)
    took, used = time.perf_counter() - began, cpu_s() - used
    if not count:
        sys.exit("not every request was answered 2xx")
    say(f"{len(sample.body)} bytes an uplink, {arguments.connections} connections")
    say(f"{count / took:,.0f} requests/s, {used / count * 1e6:.1f} µs of CPU a request")


async def bench(arguments: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        log: Any = Nothing()
        if arguments.log == "sqlite":
            from pipeline.stream.settings import LogSettings
            from pipeline.stream.sqlite import SqliteLog

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
            opened = SqliteLog.open(folder / "log.db", LogSettings(), Registry(), now_ms)
            log = stack.enter_context(opened)
        books = {"bench": rulebook()}
        if arguments.log == "kafka":
            log = await on_kafka(stack, books)
        ingest = Ingest(
            log,
            lambda: books,
            IngestSettings(port=0),
            Registry(),
            time_ordered_ids(now_ms),
            now_ms,
            lambda: None,
        )
        await ingest.start()
        await measured(ingest.port, arguments)
        await ingest.stop()
        if arguments.log == "kafka":
            await log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--log", choices=["nothing", "sqlite", "kafka"], default="nothing")
    parser.add_argument("--rate", type=float, default=0, help="requests a second, about")
    parser.add_argument("--warm", type=int, default=0, help="seconds before it is measured")
    parser.add_argument("--bare", action="store_true", help="aiohttp alone")
    parser.add_argument("--folder", help="where the embedded log's file is made")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    arguments = parser.parse_args()
    if (arguments.rate or arguments.warm or arguments.bare) and not shutil.which("wrk"):
        sys.exit("--rate, --warm and --bare need wrk")
    measure = bare if arguments.bare else bench
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.run(measure(arguments))
    else:
        asyncio.run(measure(arguments))


if __name__ == "__main__":
    main()
