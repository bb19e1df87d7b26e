"""A record that could not be handled, kept whole."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.record import (
    CAUSE_ID,
    CE_ID,
    CE_TENANT,
    EVENT_ID,
    TENANT,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    headers_of,
)


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """`dead.letter`: the original record and why it is here.

    `reason` is the error's code; `detail` what helps to mend it (script, line, chain, node,
    attempts).
    `value` are the original bytes. A replay appends them again to `topic` with the same key and
    headers.
    """

    id: str
    stage: str
    reason: str
    message: str
    time_ms: int
    tenant: str
    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None
    headers: dict[str, str] = {}
    detail: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode
DEAD_LETTER_TOPIC = "dead.letter"


def bury(
    record: Record,
    *,
    stage: str,
    reason: str,
    message: str,
    detail: dict[str, Any],
    now_ms: int,
    tag: str = "x",
    rules: str = "",
) -> Outgoing:
    """Return the dead letter of `record`. `tag` tells apart several of one record (two chains
    failed); `rules` is the version of those by which it could not be handled.
    """
    headers = record.headers
    place = f"{record.topic}-{record.partition}-{record.offset}"
    cause = headers.get(EVENT_ID) or headers.get(CE_ID) or place
    tenant = headers.get(TENANT) or headers.get(CE_TENANT, "")
    letter = DeadLetter(
        id=derive_id(cause, f"{stage}-{tag}"),
        stage=stage,
        reason=reason,
        message=message,
        time_ms=now_ms,
        tenant=tenant,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=headers,
        detail=detail,
    )
    out = headers_of(
        event_id=letter.id,
        trace=headers.get(TRACE_ID) or headers.get(CE_ID, ""),
        cause=headers.get(EVENT_ID) or headers.get(CAUSE_ID, cause),
        tenant=tenant,
        rules=rules,
    )
    return Outgoing(topic=DEAD_LETTER_TOPIC, key=record.key, value=_encode(letter), headers=out)
