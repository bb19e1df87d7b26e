"""Recorded messages, of a log or a file → inputs for `outcome_of`, in the order of their times.

Of a log: uplinks as they were received, or as they were decoded; and what applications asked for.
What Funicular itself wrote on account of them (told devices, changes, reports of downlinks) is
left out: it comes again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from pipeline.model.event import DeviceMessage
from pipeline.model.record import CE_ID, CE_TENANT, EVENT_ID, RULES_VERSION, Record, split_key
from pipeline.rehearse.chain_test_config import StepConfig
from pipeline.rehearse.messages import Entry
from pipeline.rehearse.outcome import Input
from pipeline.rehearse.recorded import Records
from pipeline.topics import DEVICE_EVENTS, UPLINK_RECEIVED

INPUTS_MAX = 10_000
"""Unless told otherwise: about half a minute for two rulebooks."""

Source = Literal["uplinks", "events"]
_COMMANDS = frozenset(
    {"attributes_change", "downlink", "downlinks", "cancel", "forget", "call_ended"}
)


class Span(NamedTuple):
    """Which messages: from one time on, before another (epoch milliseconds; 0: no end), the last
    `limit` of them.
    """

    since_ms: int = 0
    until_ms: int = 0
    limit: int = INPUTS_MAX


class _Head(msgspec.Struct):
    """What tells the kinds of events apart."""

    kind: str = ""
    teller: str = ""


_read_head = msgspec.json.Decoder(_Head).decode


def inputs_of_log(recorded: Records, tenant: str, span: Span, source: Source) -> list[Input]:
    """Return the last messages of a tenant in the span, in the order of their times.

    `source` `uplinks`: as they were received, so that converters count; `events`: as they were
    decoded then.
    """
    uplinks = _uplinks(recorded, tenant, span) if source == "uplinks" else iter(())
    found = enumerate(chain(uplinks, _events(recorded, tenant, span, source)))
    # Kafka's partitions come one after the other, so that the last ones are known at the end only.
    last = heapq.nlargest(span.limit, found, key=_order)
    return [each for _, each in sorted(last, key=_order)]


def _order(numbered: tuple[int, Input]) -> tuple[int, int]:
    return numbered[1].time_ms, numbered[0]


def inputs_of_file(entries: Sequence[Entry]) -> list[Input]:
    """Return the entries of a file as they stand; events are at their times, steps at that of the
    entry before them.
    """
    made = []
    time_ms = 0
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, StepConfig):
            made.append(Input(str(number), time_ms, entry))
            continue
        received = entry.received_ms if isinstance(entry, DeviceMessage) else entry.time_ms
        time_ms = max(time_ms, received)
        made.append(Input(entry.id, time_ms, entry))
    return made


def _uplinks(recorded: Records, tenant: str, span: Span) -> Iterator[Input]:
    for record in _within(recorded.records(UPLINK_RECEIVED, since_ms=span.since_ms), span):
        headers = record.headers
        if (headers.get(CE_TENANT) or split_key(record.key)[0]) == tenant:
            place = f"{record.topic}-{record.partition}-{record.offset}"
            yield Input(headers.get(CE_ID) or place, record.time_ms, record)


def _events(recorded: Records, tenant: str, span: Span, source: Source) -> Iterator[Input]:
    for record in _within(recorded.records(DEVICE_EVENTS, since_ms=span.since_ms), span):
        if split_key(record.key)[0] == tenant and _counts(record, source):
            yield Input(record.headers.get(EVENT_ID, ""), record.time_ms, record)


def _counts(record: Record, source: Source) -> bool:
    try:
        head = _read_head(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False  # it was buried at once, whatever the rules
    if head.kind == "message":
        # A foreign producer's event names no rules: no uplink stands for it.
        own = bool(record.headers.get(RULES_VERSION))
        return not head.teller and (source == "events" or not own)
    return head.kind in _COMMANDS


def _within(records: Iterable[Record], span: Span) -> Iterator[Record]:
    for record in records:
        if not span.until_ms or record.time_ms < span.until_ms:
            yield record
