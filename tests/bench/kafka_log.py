"""How many appends a second the door's log takes on Kafka, and how long one waits.

`python -m tests.bench.kafka_log [records]`: many callers, each awaiting its own append of one
668-byte record, on a broker of `tests/kafka/brokers.py`; beside it `send_and_wait` a record.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop
from aiokafka import AIOKafkaProducer

from pipeline.model.record import Outgoing
from pipeline.stream.kafka_log import KafkaLog
from pipeline.stream.kafka_settings import KafkaSettings
from tests.kafka import brokers

HEADERS = {"ce_id": "0197", "ce_tenant": "acme", "ce_integration": "ttn", "ce_specversion": "1.0"}


async def run(count: int, callers: int, append: Callable[[str], Awaitable[None]]) -> str:
    waits: list[float] = []

    async def call(caller: int) -> None:
        for number in range(count // callers):
            began_s = time.perf_counter()
            await append(f"acme/dev{(caller * 7919 + number) % 5_000}")
            waits.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    rate = len(waits) / (time.perf_counter() - began_s)
    waits.sort()
    return (
        f"{callers:>5} callers: {rate:>8,.0f}/s,"
        f" half within {waits[len(waits) // 2] * 1e3:.1f} ms,"
        f" 99 % within {waits[len(waits) * 99 // 100] * 1e3:.1f} ms"
    )


async def main(count: int, bootstrap: str) -> None:
    value = b"x" * 668
    log = KafkaLog(KafkaSettings(bootstrap=bootstrap))
    await log.start(["bench"])

    async def ours(key: str) -> None:
        await log.append((Outgoing("bench", key, value, HEADERS),))

    for callers in (1, 32, 256, 1_000):
        sys.stdout.write(f"KafkaLog      {await run(min(count, callers * 500), callers, ours)}\n")
    await log.close()

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    headers = [(name, text.encode()) for name, text in HEADERS.items()]

    async def theirs(key: str) -> None:
        await producer.send_and_wait("bench", value, key=key.encode(), headers=headers)

    for callers in (1, 32, 256, 1_000):
        sys.stdout.write(f"send_and_wait {await run(min(count, callers * 500), callers, theirs)}\n")
    await producer.stop()


if __name__ == "__main__":
    shared = brokers.shared()
    shared.create({"bench": 6})
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000, shared.bootstrap))
