"""What the door's tests share: a log in memory, a dialect that does as it is told, a rulebook."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.ingest.access import Access
from pipeline.ingest.api import Api
from pipeline.ingest.applications import Applications
from pipeline.ingest.door import Door
from pipeline.ingest.ingest import Ingest
from pipeline.ingest.keys import KeyStore
from pipeline.ingest.network_queues import NetworkQueues
from pipeline.ingest.owner import Owners
from pipeline.ingest.replies import Replies
from pipeline.ingest.reports import Reports
from pipeline.ingest.settings import IngestSettings
from pipeline.ingest.ttn_v2_door import TtnV2Speech
from pipeline.ingest.tts_v3_door import TtsV3Speech
from pipeline.ingest.waiting import Waiting
from pipeline.integrations.dialect import Options
from pipeline.metrics import Registry
from pipeline.model.http import Call, Request, Response
from pipeline.model.record import REPLY_TO, TENANT, TRACE_ID, Outgoing, Record
from pipeline.model.reply import Reply, ReplyTo
from pipeline.model.uplink import Uplink
from pipeline.ports import Holder
from pipeline.rulebook.book import Authentication, Integration, Rulebook
from tests.made_integration import made_integration

NOW_MS = 1_790_000_000_123
PARTITION = 3  # of topic `reply`, where this process is answered


class FakeReader:
    def __init__(self, topic: str, group: str) -> None:
        self.topic, self.group = topic, group
        self.queue: asyncio.Queue[Sequence[Record] | Exception | None] = asyncio.Queue()
        self.committed: list[int] = []
        self.closed = False

    async def batches(self, records_max: int) -> AsyncIterator[Sequence[Record]]:
        while (batch := await self.queue.get()) is not None:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    async def opened(self) -> None:
        await asyncio.sleep(0)

    def watch(self, holder: Holder) -> None:
        raise AssertionError("one reader has its partition for itself")

    async def commit(
        self, offset: int | Mapping[int, int], records: Sequence[Outgoing] = ()
    ) -> None:
        assert not isinstance(offset, int)
        self.committed.append(offset[PARTITION])

    async def close(self) -> None:
        self.closed = True


class FakeLog:
    """Keeps records in a list. `fail`: raised by `append`, nothing is kept. `answer`: called with
    each record that waits for a reply; what it returns is replied.
    """

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.appends: list[int] = []
        self.fail: Exception | None = None
        self.reader: FakeReader | None = None
        self.answer: Callable[[Outgoing, ReplyTo], list[Reply]] | None = None
        self.offset = 0

    async def append(self, records: Sequence[Outgoing]) -> None:
        await asyncio.sleep(0)
        if self.fail is not None:
            raise self.fail
        self.records += records
        self.appends.append(len(records))
        for record in records:
            if self.answer is not None and REPLY_TO in record.headers:
                to = msgspec.json.decode(record.headers[REPLY_TO], type=ReplyTo)
                for reply in self.answer(record, to):
                    self.reply(reply, to.instance)

    def partition_of(self, topic: str, key: str) -> int:
        return PARTITION

    def read(
        self, topic: str, group: str, *, from_end: bool = False, partition: int | None = None
    ) -> FakeReader:
        assert from_end
        assert partition == PARTITION
        self.reader = FakeReader(topic, group)
        return self.reader

    def reply(self, reply: Reply, instance: str, tenant: str = "acme") -> None:
        assert self.reader is not None
        self.reader.queue.put_nowait([self.reply_record(reply, instance, tenant)])

    def reply_record(self, reply: Reply, instance: str, tenant: str = "acme") -> Record:
        self.offset += 1
        headers = {TENANT: tenant, TRACE_ID: f"trace-{reply.request}"}
        value = msgspec.json.encode(reply)
        return Record("reply", PARTITION, self.offset, NOW_MS, instance, value, headers)

    def events(self, topic: str) -> list[Any]:
        return [orjson.loads(r.value) for r in self.records if r.topic == topic and r.value]


class FakeOptions(Options):
    device_header: str = ""
    repeat_header: str | None = None


class FakeDialect:
    """Reads `{"devices": [...]}`; answers with the downlinks that it is given."""

    name = "fake"
    synchronous = False

    def read(self, request: Request, options: Any, device_template: str) -> list[Uplink]:
        try:
            said = orjson.loads(request.body or b"{}")
        except orjson.JSONDecodeError as error:
            raise MessageError(f"not JSON: {error}", code="json", field="body") from None
        return [Uplink(device=device) for device in said.get("devices", [None])]

    def answer(self, replies: Sequence[Reply], request: Request, options: Any) -> Response:
        said = {reply.device: reply.downlink_id for reply in replies if reply.downlink_id}
        if not said:
            return Response(status=202)
        return Response(200, orjson.dumps(said), {"content-type": "application/json"})


class World:
    """A door and an API over a log in memory; `integration` changes the one that there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = FakeLog()
        self.metrics = Registry()
        self.now_ms = NOW_MS
        self.ids = 0
        self.missing: str | None = None
        self.settings = IngestSettings(port=0, keys_file=folder / "keys.json", linger_s=0.2)
        self.integrations = {
            "meters": made_integration(
                name="meters",
                dialect=FakeDialect(),
                options=FakeOptions(),
                authentication=Authentication("header", "X-Key", "s3cret"),
                body_bytes_max=1_000,
                device_type="meter",
            )
        }
        self.instance = "inst"
        self.called: list[Call] = []
        self.network_queue = Response(200, b"{}")

    def integration(self, **changes: Any) -> Integration:
        changed = replace(self.integrations["meters"], **changes)
        self.integrations["meters"] = changed
        return changed

    def rulebooks(self) -> dict[str, Rulebook]:
        book = Rulebook("acme", Path(), "v1", self.integrations, {}, {}, {})
        return {"acme": book}

    def new_id(self) -> str:
        self.ids += 1
        return f"id{self.ids}"

    def clock(self) -> int:
        return self.now_ms

    def open(self) -> None:
        """Make the parts; inside a loop."""
        settings = self.settings
        times = {"new_id": self.new_id, "now_ms": self.clock}
        self.waiting = Waiting(self.instance, settings.waiting_max)
        self.reports = Reports(self.log, self.clock, settings.reports_max)
        self.replies = Replies(self.log, self.waiting, self.reports, batch_max=100, commit_s=0)
        self.keys = KeyStore(settings.keys_file, now_ms=self.clock, clock_s=lambda: 0.0)
        self.access = Access(self.keys, settings.host)
        self.door = Door(self.log, self.rulebooks, self.waiting, self.reports, settings, **times)
        owners = Owners(self.log, self.rulebooks, self.waiting, settings, **times)
        queues = NetworkQueues(self.rulebooks, self.outward)
        self.api = Api(owners, self.rulebooks, self.access, queues)
        speeches = (TtnV2Speech(), TtsV3Speech())
        self.applications = Applications(speeches, owners, self.rulebooks, self.access, queues)

    async def outward(self, call: Call) -> Response:
        """Answer for the network servers."""
        self.called.append(call)
        return self.network_queue

    def ingest(self) -> Ingest:
        return Ingest(
            self.log,
            self.rulebooks,
            self.settings,
            self.metrics,
            self.new_id,
            self.clock,
            lambda: self.missing,
        )

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a test's coroutine with the parts made, and the reply reader and reports alive."""

        async def main() -> Any:
            self.open()
            self.replies.open()
            loop = asyncio.get_running_loop()
            tasks = [
                loop.create_task(self.replies.run(loop.time)),
                loop.create_task(self.reports.run()),
            ]
            try:
                return await work()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        return asyncio.run(main())

    async def turns(self, count: int = 10) -> None:
        """Let the other tasks run."""
        for _ in range(count):
            await asyncio.sleep(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
