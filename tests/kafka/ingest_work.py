"""What tests of Kafka as a source share: a worker's sources over a log that can be held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer

from pipeline.ingest.door import Door
from pipeline.ingest.reports import Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.sources import Sources
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import dialects
from pipeline.model.record import Outgoing
from pipeline.rulebook.book import Authentication, Integration, Rulebook
from pipeline.rulebook.connections.kafka_topics import KafkaSourceConfig
from tests.kafka.brokers import Brokers

NOW_MS = 1_790_000_000_000
WITHIN_S = 60.0


class HeldLog:
    """Keeps records in a list, when it may: `open` is cleared to hold all appends back."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, records: Sequence[Outgoing]) -> None:
        self.asked += len(records)
        await self.open.wait()
        self.records += records

    def bodies(self) -> list[bytes]:
        return [record.value or b"" for record in self.records]

    def numbers(self) -> list[int]:
        return [orjson.loads(body)["n"] for body in self.bodies()]


class Process:
    """The part of an ingest worker that this is about: a door and its sources, over `log`."""

    def __init__(self, log: HeldLog, one: Integration, worker: str = "w1") -> None:
        log_: Any = log
        settings = IngestSettings(source_pause_s=0.1, source_pause_s_max=0.5, worker=worker)
        ids = iter(range(1_000_000))
        door = Door(log_, self.rulebooks, Waiting("i", 10), Reports(log_, clock, 10), settings,
                    new_id=lambda: f"{worker}-{next(ids)}", now_ms=clock)  # fmt: skip
        self.book = {one.name: one}
        self.bugs: list[BaseException] = []
        self.sources = Sources(door, log_, self.rulebooks, settings, now_ms=clock,
                               on_bug=self.bugs.append)  # fmt: skip

    def rulebooks(self) -> dict[str, Rulebook]:
        return {"acme": Rulebook("acme", Path(), "v1", self.book, {}, {}, {})}

    def status(self) -> Any:
        (only,) = self.sources.status()
        return only


def clock() -> int:
    return NOW_MS


def integration(
    brokers: Brokers, dialect: str, topics: str, options: Any = None, **connection: Any
) -> Integration:
    chosen = dialects()[dialect]
    given = {"servers": brokers.bootstrap, "topics": [topics], "start": "earliest",
             "session_timeout": 6, **connection}  # fmt: skip
    if connection.get("pattern"):
        del given["topics"]
    return Integration(
        tenant="acme", name="barn", dialect=chosen,
        options=chosen.options.model_validate(options or {}), authentication=Authentication(),
        device_template=chosen.device_template, converter=None, synchronous=False,
        answer_timeout_s=5, unanswered="requeue", queue_max=10, body_bytes_max=10_000,
        ordered=True, metadata={}, device_type="", transport="kafka",
        connection=KafkaSourceConfig.model_validate(
            {"group": f"funicular-{topics}", **given}
        ),
    )  # fmt: skip


def plain(brokers: Brokers, topic: str, **connection: Any) -> Integration:
    """Return an integration of JSON whose device is the record's key."""
    return integration(brokers, "http", topic, {"device_query": "key"}, **connection)


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    try:
        for process in processes:
            await process.sources.refresh()
        for process in processes:
            await until(lambda each=process: each.status().connects)
        yield
    finally:
        for process in processes:
            await process.sources.stop()
            assert not process.bugs


async def until(true: Callable[[], Any], seconds: float = WITHIN_S) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - it is about other tasks and another process
            await asyncio.sleep(0.02)


def produce(brokers: Brokers, topic: str, *records: tuple[Any, ...]) -> None:
    """Write records: key, value, and perhaps headers and partition."""
    producer = Producer({"bootstrap.servers": brokers.bootstrap, "log_level": 0,
                         "message.max.bytes": 10_000_000})  # fmt: skip
    for key, value, *more in records:
        headers = more[0] if more else None
        partition = more[1] if len(more) > 1 else -1
        producer.produce(topic, value, key, partition, headers=headers)
    assert producer.flush(30) == 0


def numbered(first: int, count: int, keys: int = 1) -> list[tuple[str, bytes]]:
    return [(f"d{n % keys}", orjson.dumps({"n": n})) for n in range(first, first + count)]
