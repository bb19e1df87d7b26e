"""What the stages wrote → what it means to those outside: downlinks, deliveries, dead letters,
each with the trace of the message that it came of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pipeline.model.dead_letter import DEAD_LETTER_TOPIC, DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.record import TRACE_ID, Outgoing
from pipeline.topics import DELIVERY_PREFIX, DOWNLINK_STATUS, downlink_destination

_decode_downlink = msgspec.json.Decoder(Downlink).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode
_decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode


class Effect(msgspec.Struct, frozen=True, omit_defaults=True):
    """One downlink, as it stands at the end; one delivery; or one dead letter.

    `trace` is the id of the uplink, command or message that it came of. `to` is the delivery's
    sink, the downlink's integration, the dead letter's stage; `shown` is what there is of it.
    """

    id: str
    trace: str
    device: str
    to: str
    shown: Any


class Effects(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of them, each kind in the order in which they came."""

    downlinks: list[Effect] = []
    deliveries: list[Effect] = []
    dead_letters: list[Effect] = []


def effects_of(journal: Sequence[Outgoing], tenant: str) -> Effects:
    """Return what records of any topics mean, in the order in which they were written."""
    return Effects(
        _downlinks(journal), list(_deliveries(journal, tenant)), list(_dead_letters(journal))
    )


def _downlinks(journal: Iterable[Outgoing]) -> list[Effect]:
    last: dict[str, Downlink] = {}
    for record in journal:
        if record.topic == DOWNLINK_STATUS:
            downlink = _decode_downlink(record.value or b"")
            last[downlink.id] = downlink
    return [
        Effect(each.id, each.trace_id, each.device, each.integration, _shown(each))
        for each in last.values()
    ]


def _shown(downlink: Downlink) -> dict[str, Any]:
    shown = {
        "bytes": None if downlink.payload is None else downlink.payload.hex(" "),
        "fields": downlink.fields,
        "f_port": downlink.f_port,
        "state": downlink.state.value,
        "reason": downlink.reason,
        "message": downlink.detail.get("message", ""),
        "confirmed": downlink.confirmed,
        "priority": downlink.priority,
        "queue": downlink.queue,
        "source": downlink.source,
        "possibly_delivered": downlink.possibly_delivered,
    }
    if downlink.expires_at_ms is not None:
        shown["expires_in"] = (downlink.expires_at_ms - downlink.requested_ms) / 1_000
    return {name: value for name, value in shown.items() if value not in (None, "", False)}


def _deliveries(journal: Iterable[Outgoing], tenant: str) -> Iterable[Effect]:
    prefix = f"{DELIVERY_PREFIX}{tenant}."
    of_downlinks = prefix + downlink_destination("")
    for record in journal:
        if record.topic.startswith(prefix) and not record.topic.startswith(of_downlinks):
            delivery = _decode_delivery(record.value or b"")
            trace = record.headers.get(TRACE_ID, "")
            yield Effect(delivery.id, trace, delivery.device, delivery.destination, delivery.body)


def _dead_letters(journal: Iterable[Outgoing]) -> Iterable[Effect]:
    for record in journal:
        if record.topic == DEAD_LETTER_TOPIC:
            letter = _decode_dead_letter(record.value or b"")
            shown = {"reason": letter.reason, "message": letter.message, "detail": letter.detail}
            trace, device = record.headers.get(TRACE_ID, ""), record.key.partition("/")[2]
            yield Effect(letter.id, trace, device, letter.stage, shown)
