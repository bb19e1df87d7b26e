"""The load of `funicular bench`, in a process of its own, so that its work is not the worker's.

In: a `Load` as JSON on standard input. Out, on standard output: a `Told` as JSON a line each
`TELL_EVERY_S`, and a last one when all that was sent has its answer.

With a rate, uplink n is due n/rate seconds after the start, and what it takes is counted from
then: a worker that stalls cannot make the load wait for it unseen. Without one, each connection
sends as soon as it has its answer.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import msgspec

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Dialect, dialects
from pipeline.model.http import Request
from pipeline.rehearse.uplinks import with_port

TELL_EVERY_S = 0.25
ANSWER_TIMEOUT_S = 30.0
RECONNECT_AFTER_S = 0.1
LATENCY_MAX_MS = 600_000
WARM_UP_S = 2.0
"""Of the times of answers, and from door to sink, these seconds are left out, where there are three
times as many: script processes start in them, and on Kafka the stages join their groups.
"""


class Sample(msgspec.Struct, frozen=True):
    """One uplink: bytes that the dialect makes a request of, or a request as a whole."""

    payload: bytes = b""
    f_port: int | None = None
    whole: Request | None = None


class Source(msgspec.Struct, frozen=True):
    """An integration's door and what is sent to it. `headers` and `query` hold its secret.

    `said` is where the samples are from; `warning` what their user should know.
    """

    integration: str
    dialect: str
    target: str
    headers: dict[str, str]
    samples: tuple[Sample, ...]
    said: str
    warning: str = ""


class Load(msgspec.Struct, frozen=True):
    """What to send: `rate` uplinks a second in all (0: flat out) for `seconds`; `devices` and
    `connections` are of each source.
    """

    host: str
    port: int
    sources: tuple[Source, ...]
    devices: int
    rate: float
    seconds: float
    connections: int


def warm_up_s(load: Load) -> float:
    """Return the first seconds of a load of which no time counts."""
    return WARM_UP_S if load.seconds >= 3 * WARM_UP_S else 0.0


class Told(msgspec.Struct, frozen=True):
    """What has become of it so far. `answers` counts by status; 0: no answer. The last line has
    also `waits_ms`, how many answers took as many milliseconds, and this process's CPU time.
    """

    sent: int
    answers: dict[int, int]
    ended: bool = False
    seconds: float = 0.0
    waits_ms: dict[int, int] = {}
    cpu_s: float = 0.0


class _Stream:
    """What goes to one source: its requests, and how many have been sent."""

    def __init__(self, load: Load, source: Source) -> None:
        self.requests = requests(load, source)
        self.sent = 0


class Sender:
    """Sends a load. `run` once."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rate = load.rate / len(load.sources)
        self._streams = [_Stream(load, source) for source in load.sources]
        self._began = self._counted_from = 0.0
        self._answers: Counter[int] = Counter()
        self._waits_ms: Counter[int] = Counter()

    async def run(self) -> None:
        """Return when the time is over and each request has its answer, or none in time."""
        self._began = time.perf_counter()
        self._counted_from = self._began + warm_up_s(self._load)
        telling = asyncio.create_task(self._tell())
        # Each source has its own connections: one whose answers take their time holds up no other.
        each = [stream for stream in self._streams for _ in range(self._load.connections)]
        await asyncio.gather(*map(self._connection, each))
        telling.cancel()
        self._say(ended=True)

    async def _connection(self, stream: _Stream) -> None:
        """Use one connection, and another where that broke."""
        while (due := await self._turn(stream)) is not None:
            try:
                reader, writer = await asyncio.open_connection(self._load.host, self._load.port)
            except OSError:
                self._answers[0] += 1
                await asyncio.sleep(RECONNECT_AFTER_S)
                continue
            try:
                while due is not None:
                    writer.write(next(stream.requests))
                    self._answers[await asyncio.wait_for(_status(reader), ANSWER_TIMEOUT_S)] += 1
                    if due >= self._counted_from:
                        wait_ms = round((time.perf_counter() - due) * 1_000)
                        self._waits_ms[min(wait_ms, LATENCY_MAX_MS)] += 1
                    due = await self._turn(stream)
            except (OSError, EOFError, TimeoutError, ValueError):
                self._answers[0] += 1
            finally:
                writer.close()

    async def _turn(self, stream: _Stream) -> float | None:
        """Wait for the next uplink's time and return it; None: the time is over."""
        now = time.perf_counter()
        due = self._began + stream.sent / self._rate if self._rate else now
        if due - self._began >= self._load.seconds:
            return None
        stream.sent += 1
        if due > now:
            await asyncio.sleep(due - now)
        return due

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            self._say()

    def _say(self, *, ended: bool = False) -> None:
        told = Told(
            sent=sum(stream.sent for stream in self._streams),
            answers=dict(self._answers),
            ended=ended,
            seconds=time.perf_counter() - self._began,
            waits_ms=dict(self._waits_ms) if ended else {},
            cpu_s=time.process_time(),
        )
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer; return its status. ValueError: it is no answer of HTTP."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            raise ValueError("an answer in chunks")
    if length:
        await reader.readexactly(length)
    return int(lines[0].split(b" ", 2)[1])


def device_ids(dialect: Dialect) -> Callable[[int], str]:
    """Return what gives the ids of the load's devices by their number, as the dialect takes them.
    MessageError: it takes neither short hexadecimal ones (as Sigfox's) nor EUIs of 64 bits.
    """
    try:
        dialect.sample(_short(0), 1, b"\0", 0)
    except MessageError:
        dialect.sample(_eui(0), 1, b"\0", 0)
        return _eui
    return _short


def _short(number: int) -> str:
    return f"b{number:05x}"


def _eui(number: int) -> str:
    return f"{number:016x}"


def requests(load: Load, source: Source) -> Iterator[bytes]:
    """Yield requests of a source as bytes, for ever: each of its devices in turn, with one sample
    after the other. Counters and times are the dialect's own, so that none is another's repeat.
    """
    dialect = dialects()[source.dialect]
    identity = device_ids(dialect)
    number = 0
    while True:
        device, counter = number % load.devices, number // load.devices
        # A device comes round to all samples, also where there are as many of them as of devices.
        sample = source.samples[(number + counter) % len(source.samples)]
        request = sample.whole or _made(dialect, sample, identity(device), 1 + counter)
        yield _bytes(load, source, request)
        number += 1


def _made(dialect: Dialect, sample: Sample, device: str, counter: int) -> Request:
    now_ms = time.time_ns() // 1_000_000
    request = dialect.sample(device, counter, sample.payload, now_ms)
    return request if sample.f_port is None else with_port(request, sample.f_port)


def _bytes(load: Load, source: Source, request: Request) -> bytes:
    target = source.target
    if request.query:
        target += ("&" if "?" in target else "?") + urlencode(request.query)
    headers = {
        "host": f"{load.host}:{load.port}",
        **request.headers,
        **source.headers,
        "content-length": str(len(request.body)),
    }
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def main() -> None:
    """Do what standard input says."""
    load = msgspec.json.decode(sys.stdin.buffer.readline(), type=Load)
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        asyncio.run(Sender(load).run())
    else:
        uvloop.run(Sender(load).run())


if __name__ == "__main__":
    main()
