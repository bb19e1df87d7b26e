"""Where sources bring messages: what the log refuses is kept as far as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from pipeline.errors import MessageError
from pipeline.ingest.door import Door, Gate
from pipeline.ingest.inlet import DoorInlet
from pipeline.ingest.reports import Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.source_health import SourceHealth
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import dialects
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.http import Request
from pipeline.model.record import Outgoing
from pipeline.rulebook.book import Rulebook
from tests.made_integration import made_integration

NOW_MS = 1_790_000_000_000
LIMIT = 2_000


class SmallLog:
    """Takes no record of more than LIMIT bytes, and then none of its batch."""

    def __init__(self, *, says_limit: bool = True) -> None:
        self.records: list[Outgoing] = []
        self._detail = {"limit": LIMIT} if says_limit else {}

    async def append(self, records: Sequence[Outgoing]) -> None:
        if any(len(record.value or b"") > LIMIT for record in records):
            raise MessageError("too large", code="record_too_large", **self._detail)
        self.records += records


def inlet_of(log: SmallLog) -> DoorInlet:
    dialect = dialects()["http"]
    integration = made_integration(
        name="i",
        dialect=dialect,
        options=dialect.options(device_field="device"),
        device_template=dialect.device_template,
        body_bytes_max=100_000,
    )
    books = {"acme": Rulebook("acme", Path(), "v1", {"i": integration}, {}, {}, {})}
    settings = IngestSettings(worker="w1")
    ids = iter(range(1_000))
    door = Door(log, lambda: books, Waiting("i", 10), Reports(log, lambda: NOW_MS, 10), settings,
                new_id=lambda: f"id{next(ids)}", now_ms=lambda: NOW_MS)  # fmt: skip
    health = SourceHealth("acme", "i", "http", "kafka", lambda: NOW_MS)
    return DoorInlet(door, Gate(integration), log, health, settings, now_ms=lambda: NOW_MS)


def body(length: int) -> bytes:
    start = b'{"device":"d1","t":"'
    return start + b"x" * (length - len(start) - 2) + b'"}'


async def test_what_the_log_is_too_small_for_becomes_a_dead_letter() -> None:
    """The others of its batch are stored, and its beginning is kept with the reason."""
    log = SmallLog()
    sizes = (100, 5_000, 200, 9_000)

    await inlet_of(log).take([Request(body(size)) for size in sizes])

    assert [record.topic for record in log.records] == [
        "uplink.received",
        "dead.letter",
        "uplink.received",
        "dead.letter",
    ]
    letter = msgspec.json.decode(log.records[1].value or b"", type=DeadLetter)
    assert (letter.stage, letter.reason) == ("ingest", "record_too_large")
    assert letter.value == body(5_000)[: LIMIT // 4]
    assert letter.detail == {"length": 5_000, "limit": LIMIT}


async def test_a_refusal_of_something_else_is_not_swallowed() -> None:
    """A refusal that names no limit is a bug, and is told as one."""
    with pytest.raises(MessageError):
        await inlet_of(SmallLog(says_limit=False)).take([Request(body(5_000))])
