"""What a delivery leaves behind when it is over: nothing, a dead letter, or news of a downlink."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

import msgspec

from pipeline.model.dead_letter import bury
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import State
from pipeline.model.event import CallEnded, DeviceEvent, DownlinkReport
from pipeline.model.record import (
    EVENT_ID,
    RULES_VERSION,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    device_key,
    headers_of,
)
from pipeline.model.uplink import Report
from pipeline.sink.transport import Result
from pipeline.topics import DEVICE_EVENTS, integration_of

STAGE = "sink"
BAD_DELIVERY = "bad_delivery"  # the reason of a record that is none
_encode = msgspec.json.Encoder().encode


class How(StrEnum):
    """How a delivery ended; the label `result` of `funicular_deliveries_total`."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    GIVEN_UP = "given_up"
    EXPIRED = "expired"


class Ended(msgspec.Struct, frozen=True):
    """The end of one delivery. `attempts` counts the failed ones, `error` is the last of them.

    `uncertain`: one of the attempts may have arrived all the same.
    """

    how: How
    result: Result
    attempts: int = 0
    error: str = ""
    uncertain: bool = False

    @property
    def reason(self) -> str:
        """The code for people and metrics: why it was not delivered; empty where it was."""
        if self.how is How.DELIVERED:
            return ""
        return self.result.reason if self.how is How.REFUSED else self.how.value

    @property
    def message(self) -> str:
        """A sentence, with the last error where attempts failed."""
        if self.how is How.REFUSED:
            return self.result.message
        tries = f"{self.attempts} attempt" + ("" if self.attempts == 1 else "s")
        last = f": {self.error}" if self.error else ""
        return f"{self.how.replace('_', ' ')} after {tries}{last}"

    @property
    def detail(self) -> dict[str, Any]:
        """What helps to mend it, as JSON."""
        detail = dict(self.result.detail)
        if self.attempts:
            detail |= {"attempts": self.attempts, "last_error": self.error}
        return detail


Ending = Callable[[Record, Delivery, Ended, int], list[Outgoing]]
"""(the delivery's record, the delivery, its end, now in epoch milliseconds) → what to append."""


def sink_ending(record: Record, delivery: Delivery, ended: Ended, now_ms: int) -> list[Outgoing]:
    """Bury what was refused or given up; what was delivered leaves nothing behind. Where a chain
    waits for the answer, it is told either.
    """
    if delivery.awaited:
        return [_call_ended(record, delivery, ended, now_ms)]
    if ended.how is How.DELIVERED:
        return []
    detail = ended.detail | {"destination": delivery.destination}
    return [
        bury(
            record,
            stage=STAGE,
            reason=ended.reason,
            message=ended.message,
            detail=detail,
            now_ms=now_ms,
            tag=delivery.destination,
            rules=record.headers.get(RULES_VERSION, ""),
        )
    ]


def _call_ended(record: Record, delivery: Delivery, ended: Ended, now_ms: int) -> Outgoing:
    """Tell the device's log how a call ended; the chain that waits decides what that means."""
    event = CallEnded(
        id=derive_id(delivery.id, "ended"),
        tenant=delivery.tenant,
        device=delivery.device,
        time_ms=now_ms,
        call=delivery.id,
        how=_HOW.get(ended.how, "failed"),
        answer=ended.result.answer,
        reason=ended.reason,
        message=ended.message if ended.reason else "",
        detail={} if ended.how is How.DELIVERED else ended.detail,
    )
    return _event(record, delivery, event.id, event)


_HOW: dict[How, Literal["replied", "timeout"]] = {
    How.DELIVERED: "replied",
    How.EXPIRED: "timeout",
}
_STATES = {
    How.DELIVERED: State.SENT,
    How.REFUSED: State.FAILED,
    How.GIVEN_UP: State.FAILED,
    How.EXPIRED: State.EXPIRED,
}


def downlink_ending(
    record: Record, delivery: Delivery, ended: Ended, now_ms: int
) -> list[Outgoing]:
    """Tell the device's log what became of its downlink; its life is the record of a failure.

    What was to empty a network server's queue, and did not, has no life: it becomes a dead letter.
    """
    if delivery.clear and ended.how is not How.DELIVERED:
        return sink_ending(record, delivery, ended, now_ms)
    state = _STATES[ended.how]
    downlink_id = delivery.downlink.id if delivery.downlink else ""
    detail: dict[str, Any]
    if ended.how is How.DELIVERED:
        detail = dict(ended.result.detail)  # what the network server calls it: `reference`
    else:
        detail = {"message": ended.message} | ended.detail
        if ended.uncertain:
            detail["possibly_delivered"] = True
    event = DownlinkReport(
        id=derive_id(delivery.id, state),
        tenant=delivery.tenant,
        device=delivery.device,
        time_ms=now_ms,
        report=Report(
            state=state,
            downlink_id=downlink_id,
            reason=ended.reason,
            detail=detail,
            cleared=delivery.clear,
        ),
        integration=integration_of(delivery.destination),
        outcome=True,
    )
    return [_event(record, delivery, event.id, event)]


def _event(record: Record, delivery: Delivery, event_id: str, event: DeviceEvent) -> Outgoing:
    """Return an event of the delivery's device."""
    headers = headers_of(
        event_id=event_id,
        trace=record.headers.get(TRACE_ID, ""),
        cause=record.headers.get(EVENT_ID, delivery.id),
        tenant=delivery.tenant,
        rules=record.headers.get(RULES_VERSION, ""),
    )
    key = device_key(delivery.tenant, delivery.device)
    return Outgoing(topic=DEVICE_EVENTS, key=key, value=_encode(event), headers=headers)


def unreadable(record: Record, message: str, now_ms: int) -> Outgoing:
    """Bury a record that is no delivery, or not one of this destination."""
    return bury(
        record,
        stage=STAGE,
        reason=BAD_DELIVERY,
        message=message,
        detail={},
        now_ms=now_ms,
        rules=record.headers.get(RULES_VERSION, ""),
    )
