"""Tells of downlinks that left, or did not leave, in an answer: DownlinkReport events to
`device.events`.

They are appended in batches, behind the answers; until they are stored they are kept and tried
again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Literal

import msgspec

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.model.downlink import State
from pipeline.model.event import DownlinkReport
from pipeline.model.record import Outgoing, derive_id, device_key, headers_of
from pipeline.model.reply import Reply
from pipeline.model.uplink import Report
from pipeline.ports import Log
from pipeline.topics import DEVICE_EVENTS

Outcome = Literal["answered", "not_answered", "too_late", "refused"]
"""What became of an answer: the client has it; it was written and may have arrived; it was never
written, as the time was up or the client had gone; it cannot be written on this way at all."""
_STATES: dict[Outcome, State] = {"answered": State.SENT, "refused": State.FAILED}
BATCH_MAX = 1_000
BACKOFF_S = 0.1
BACKOFF_MAX_S = 5.0

_encode = msgspec.json.Encoder().encode
_log = get_logger(__name__)


class Reports:
    """The reports that are not yet stored. For one event loop."""

    def __init__(self, log: Log, now_ms: Callable[[], int], reports_max: int) -> None:
        self._log = log
        self._now_ms = now_ms
        self._reports_max = reports_max
        self._pending: deque[Outgoing] = deque()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether no more synchronous requests should be taken; those under way may still add."""
        return len(self._pending) >= self._reports_max

    def add(self, tenant: str, reply: Reply, trace: str, outcome: Outcome, why: str = "") -> None:
        """Tell that `reply`'s downlink left in an answer (`sent`), or did not (back to
        `queued`, the outcome is the reason), or never can (`failed`; `why` is a sentence).
        `trace` is the uplink's id.
        """
        report = Report(
            state=_STATES.get(outcome, State.QUEUED),
            downlink_id=reply.downlink_id,
            reason="" if outcome == "answered" else outcome,
            detail={"message": why} if why else {},
        )
        event = DownlinkReport(
            id=derive_id(f"{reply.downlink_id}.{reply.request}", outcome),
            tenant=tenant,
            device=reply.device,
            time_ms=self._now_ms(),
            report=report,
        )
        headers = headers_of(
            event_id=event.id, trace=trace, cause=reply.request, tenant=tenant, rules=""
        )
        key = device_key(tenant, reply.device)
        self._pending.append(
            Outgoing(topic=DEVICE_EVENTS, key=key, value=_encode(event), headers=headers)
        )
        self._wake.set()

    async def run(self) -> None:
        """Store reports as they come, for ever; cancel it to end it, then `flush`."""
        backoff_s = BACKOFF_S
        while True:
            await self._wake.wait()
            try:
                await self._store()
                backoff_s = BACKOFF_S
            except RetryableError as error:
                if backoff_s == BACKOFF_S:
                    _log.warning("reports wait: the log takes none", error=error.message)
                await asyncio.sleep(error.retry_after_s or backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def flush(self) -> None:
        """Store all that is left. RetryableError: the log takes none; they are told of in the
        log of this program, and the downlink stage's own timer puts their downlinks back.
        """
        try:
            await self._store()
        finally:
            if self._pending:
                _log.warning("reports are lost: the log took none", reports=len(self._pending))

    async def _store(self) -> None:
        while self._pending:
            batch = list(islice(self._pending, BATCH_MAX))
            await self._log.append(batch)
            for _ in batch:
                self._pending.popleft()
        self._wake.clear()
