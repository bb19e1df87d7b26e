"""What a batch of downlink work puts out: status records, replies, dead letters, deliveries.

In: what happened, and the record that caused it. Out: records with their headers, in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline import topics
from pipeline.model.dead_letter import bury
from pipeline.model.downlink import Downlink
from pipeline.model.record import (
    EVENT_ID,
    REPLY_TO,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    device_key,
    headers_of,
)
from pipeline.model.reply import Reply, ReplyTo, read_reply_to
from pipeline.rulebook.book import Rulebook

STAGE = "downlink"

_encode = msgspec.json.Encoder().encode


class Outputs:
    """The records that one batch makes, and counts of them for the metrics."""

    def __init__(self, books: Mapping[str, Rulebook], now_ms: int) -> None:
        self._books = books
        self._now_ms = now_ms
        self.records: list[Outgoing] = []
        self.reached: Counter[str] = Counter()
        self.buried: Counter[str] = Counter()

    def bury(self, record: Record, reason: str, message: str, detail: dict[str, Any]) -> None:
        """Put a record into `dead.letter`."""
        self.buried[reason] += 1
        self.records.append(
            bury(
                record,
                stage=STAGE,
                reason=reason,
                message=message,
                detail=detail,
                now_ms=self._now_ms,
            )
        )

    def tell(self, moved: Sequence[Downlink], cause: str, trace: str) -> None:
        """Tell `downlink.status` of moves, in their order."""
        for number, downlink in enumerate(moved):
            self.reached[downlink.state] += 1
            self.put(
                topics.DOWNLINK_STATUS,
                device_key(downlink.tenant, downlink.device),
                downlink,
                event_id=derive_id(cause, f"s{number}"),
                cause=cause,
                trace=trace,
                tenant=downlink.tenant,
            )

    def reply(self, record: Record, tenant: str, reply: Reply) -> None:
        """Answer who waits for this record; nobody may."""
        reply_to = read_reply_to(record.headers.get(REPLY_TO))
        if reply_to is None:
            return
        cause = record.headers.get(EVENT_ID, "")
        trace = record.headers.get(TRACE_ID, cause)
        headers = self._headers(derive_id(cause, "r"), cause, trace, tenant)
        self._reply(reply_to, reply, headers)

    def reply_by(self, reply_to: ReplyTo, reply: Reply, downlink: Downlink, now_ms: int) -> None:
        """Send a downlink by a window that stays open; each attempt of it has its own `now_ms`."""
        event_id = derive_id(downlink.id, f"o{now_ms}")
        trace = downlink.trace_id or downlink.id
        headers = self._headers(event_id, downlink.id, trace, downlink.tenant)
        self._reply(reply_to, reply, headers)

    def _reply(self, reply_to: ReplyTo, reply: Reply, headers: dict[str, str]) -> None:
        self.records.append(
            Outgoing(
                topic=topics.REPLY,
                key=reply_to.instance,
                value=_encode(msgspec.structs.replace(reply, request=reply_to.request)),
                headers=headers,
                partition=reply_to.partition,
            )
        )

    def put(
        self,
        topic: str,
        key: str,
        value: Any,
        *,
        event_id: str,
        cause: str,
        trace: str,
        tenant: str,
    ) -> None:
        """Put out a value under an id, with the headers that all records have."""
        self.records.append(
            Outgoing(
                topic=topic,
                key=key,
                value=_encode(value),
                headers=self._headers(event_id, cause, trace, tenant),
            )
        )

    def _headers(self, event_id: str, cause: str, trace: str, tenant: str) -> dict[str, str]:
        book = self._books.get(tenant)
        return headers_of(
            event_id=event_id,
            trace=trace,
            cause=cause,
            tenant=tenant,
            rules=book.version if book else "",
        )
