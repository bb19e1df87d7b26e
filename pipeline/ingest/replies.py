"""Reads topic `reply`: answers for this process go to whoever waits, others are passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.model.record import TENANT, TRACE_ID, Record
from pipeline.model.reply import Reply
from pipeline.ports import Log, Reader
from pipeline.topics import REPLY

from .reports import Reports
from .waiting import Waiting

BACKOFF_S = 0.5

_decode = msgspec.json.Decoder(Reply).decode
_log = get_logger(__name__)


class Replies:
    """The reader of one ingest process; its group is its own, and begins at the topic's end."""

    def __init__(
        self, log: Log, waiting: Waiting, reports: Reports, *, batch_max: int, commit_s: float
    ) -> None:
        self._log = log
        self._waiting = waiting
        self._reports = reports
        self._batch_max = batch_max
        self._commit_s = commit_s
        self._offset: int | None = None
        self._reader: Reader | None = None

    def open(self) -> None:
        """Choose the partition of this process's replies, and read it from its end on."""
        instance = self._waiting.instance
        partition = self._waiting.partition = self._log.partition_of(REPLY, instance)
        self._reader = self._log.read(
            REPLY, f"ingest-{instance}", from_end=True, partition=partition
        )

    async def ready(self) -> None:
        """Return when all replies that are written from now on are read. RetryableError: the log
        cannot be reached.
        """
        assert self._reader is not None, "open() comes before ready()"
        await self._reader.opened()

    async def run(self, clock_s: Callable[[], float]) -> None:
        """Hand out replies until the log closes. RetryableErrors of the log are waited out."""
        assert self._reader is not None, "open() comes before run()"
        committed_s = clock_s()
        while True:
            try:
                async for batch in self._reader.batches(self._batch_max):
                    self.take(batch)
                    if clock_s() - committed_s >= self._commit_s:
                        committed_s = clock_s()
                        await self._commit()
            except RetryableError as error:
                _log.warning("the reply topic cannot be read", error=error.message)
                await asyncio.sleep(error.retry_after_s or BACKOFF_S)
            else:
                return

    def take(self, batch: Sequence[Record]) -> None:
        """Hand out one batch. A downlink that comes too late is reported as such."""
        for record in batch:
            self._offset = record.offset
            if record.key != self._waiting.instance or record.value is None:
                continue
            try:
                reply = _decode(record.value)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                _log.warning("a reply is not readable", offset=record.offset, error=str(error))
                continue
            trace = record.headers.get(TRACE_ID, reply.request)
            if not self._waiting.deliver(reply, trace) and reply.downlink_id:
                self._late(record, reply)

    def _late(self, record: Record, reply: Reply) -> None:
        tenant = record.headers.get(TENANT, "")
        if not tenant:
            _log.warning("a late reply does not say its tenant", downlink=reply.downlink_id)
            return
        trace = record.headers.get(TRACE_ID, reply.request)
        self._reports.add(tenant, reply, trace, "too_late")

    async def close(self) -> None:
        """Store the position and stop reading."""
        if self._reader is None:
            return
        await self._commit()
        await self._reader.close()
        self._reader = None

    async def _commit(self) -> None:
        if self._reader is None or self._offset is None:
            return
        try:
            await self._reader.commit({self._waiting.partition: self._offset})
            self._offset = None
        except RetryableError as error:
            # The next commit stores a later position; nobody reads on from this one.
            _log.warning("the position in the reply topic is not stored", error=error.message)
