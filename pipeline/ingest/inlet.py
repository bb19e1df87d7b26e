"""Where sources bring messages: a batch of them → records of `uplink.received`, in one append.

There is nobody whom a bad message could be refused to, so that it goes on as it came, and convert
makes a dead letter of it; one that is too long becomes a dead letter here, with its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.errors import LeaseLostError, MessageError, RetryableError
from pipeline.integrations.dialect import DeviceTemplate
from pipeline.logs import get_logger
from pipeline.model.dead_letter import bury
from pipeline.model.http import Request
from pipeline.model.record import REPLY_TO, Outgoing, Record
from pipeline.ports import Lease, Log
from pipeline.topics import UPLINK_RECEIVED

from .door import Answer, Door, Gate
from .problem import problem
from .settings import IngestSettings
from .source_health import SourceHealth
from .windows import Leaving, Window

STAGE = "ingest"
_log = get_logger(__name__)


class DoorInlet:
    """The inlet of one integration. `lease` is that of a connection that one worker alone has."""

    def __init__(
        self,
        door: Door,
        gate: Gate,
        log: Log,
        health: SourceHealth,
        settings: IngestSettings,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._door = door
        self._gate = gate
        self._log = log
        self._health = health
        self._settings = settings
        self._now_ms = now_ms
        self.lease: Lease | None = None

    async def take(
        self, requests: Sequence[Request], cursor: Any = None, ways_back: Sequence[str] = ()
    ) -> None:
        """See `source.Inlet`."""
        if not requests and cursor is None:
            return
        now_ms = self._now_ms()
        refused = 0
        records: list[Outgoing] = []
        for place, request in enumerate(requests):
            record, good = self._record(request, now_ms)
            if ways_back and ways_back[place] and record.topic == UPLINK_RECEIVED:
                record.headers[REPLY_TO] = ways_back[place]
            records.append(record)
            refused += not good
        await self._append(records, cursor)
        if records:
            self._health.took(len(records), refused)

    async def cursor(self) -> Any:
        """See `source.Inlet`."""
        return None if self.lease is None else await self.lease.cursor()

    def pass_over(self, count: int, reason: str) -> None:
        """See `source.Inlet`."""
        self._health.passed_over(count, reason)

    def window(self, hand_over: Callable[[Leaving], None], lasts_s: float) -> Window:
        """See `source.Inlet`."""
        return self._door.window(self._gate, hand_over, lasts_s)

    async def announce(self, device_id: str, way_back: str) -> None:
        """See `source.Inlet`."""
        template = self._gate.integration.device_template
        device = DeviceTemplate.fill(template, {"device_id": device_id})
        record = self._door.opened(self._gate, device, way_back, self._now_ms())
        await self._append([record], None)

    async def ask(self, request: Request) -> Answer:
        """See `source.Inlet`."""
        limit = self._gate.integration.body_bytes_max
        if len(request.body) > limit:
            said = f"the body has {len(request.body)} bytes; `body_bytes_max` allows {limit}"
            return Answer(problem(413, "body_length", said))
        answer = await self._door.take(self._gate, request, self._now_ms())
        if answer.response.status < 300:
            self._health.took(1, 0)
        return answer

    async def bury(self, request: Request, reason: str, message: str) -> None:
        """See `source.Inlet`."""
        await self._append([self._letter(request, reason, message, {})], None)
        self._health.took(1, 1)

    def _letter(
        self, request: Request, reason: str, message: str, detail: dict[str, Any]
    ) -> Outgoing:
        out, _ = self._door.record(self._gate, request, self._now_ms())
        return self._buried(out, reason, message, detail)

    def _buried(self, out: Outgoing, reason: str, message: str, detail: dict[str, Any]) -> Outgoing:
        """Return the dead letter of a record that the log does not get."""
        now_ms = self._now_ms()
        record = Record(UPLINK_RECEIVED, -1, -1, now_ms, out.key, out.value, out.headers)
        return bury(
            record, stage=STAGE, reason=reason, message=message, detail=detail, now_ms=now_ms
        )

    def _record(self, request: Request, now_ms: int) -> tuple[Outgoing, bool]:
        limit = self._gate.integration.body_bytes_max
        length = len(request.body)
        if length <= limit:
            return self._door.record(self._gate, request, now_ms)
        cut = Request(request.body[:limit], request.method, request.query, request.headers)
        message = f"the message has {length} bytes; `body_bytes_max` allows {limit}"
        return self._letter(cut, "body_length", message, {"length": length, "limit": limit}), False

    async def _append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        pause_s = self._settings.source_pause_s
        trouble = ""
        while True:
            try:
                await self._append_once(records, cursor)
            except LeaseLostError:
                raise
            except MessageError as error:
                records = self._without_largest(records, error)
                continue
            except RetryableError as error:
                if trouble != error.code:
                    trouble = error.code
                    _log.error("the log takes no messages of a source", error=error.message)
                self._health.troubled(f"the log takes no messages: {error.message}")
                await asyncio.sleep(error.retry_after_s or pause_s)
                pause_s = min(2 * pause_s, self._settings.source_pause_s_max)
                continue
            if trouble:
                _log.info("the log takes messages of a source again", after=trouble)
            return

    def _without_largest(
        self, records: Sequence[Outgoing], error: MessageError
    ) -> Sequence[Outgoing]:
        """Return the records, a dead letter with its beginning in place of the largest, since one
        is larger than the log takes. MessageError: no message is left to be cut.
        """
        sizes = {
            place: len(record.value or b"")
            for place, record in enumerate(records)
            if record.topic == UPLINK_RECEIVED
        }
        limit = error.detail.get("limit")
        if not sizes or not isinstance(limit, int):
            raise error
        place = max(sizes, key=sizes.__getitem__)
        out = records[place]
        cut = (out.value or b"")[: limit // 4]  # a letter is longer than what it holds
        detail = {"length": sizes[place], "limit": limit}
        beginning = msgspec.structs.replace(out, value=cut)
        letter = self._buried(beginning, error.code, error.message, detail)
        return [*records[:place], letter, *records[place + 1 :]]

    async def _append_once(self, records: Sequence[Outgoing], cursor: Any) -> None:
        lease = self.lease
        if lease is None:
            assert cursor is None, "a cursor is kept under a lease"
            await self._log.append(records)
        elif not lease.valid:
            raise LeaseLostError("another worker has this connection now")
        elif cursor is None:
            await self._log.append(records)
        else:
            await lease.append(records, cursor)
