"""A downlink: what is asked for, what it becomes, and the life it may lead.

requested → encoded → queued → answering | sending → sent → accepted
→ acknowledged | not_acknowledged
ends: failed, expired, superseded, cancelled; flag: possibly_delivered
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, get_args

import msgspec


class State(StrEnum):
    """Where a downlink stands."""

    REQUESTED = "requested"  # a rule or an application asked for it
    ENCODED = "encoded"  # its bytes are known
    QUEUED = "queued"  # it waits: for the device's next uplink, or for the one before it
    ANSWERING = "answering"  # it is in the answer to a request that waits at the door
    SENDING = "sending"  # it is in a delivery topic, on its way to the network server
    SENT = "sent"  # the network server's request was answered with it, or took it with a 2xx
    ACCEPTED = "accepted"  # the network server reported that it queued or transmitted it
    ACKNOWLEDGED = "acknowledged"  # the device confirmed it
    NOT_ACKNOWLEDGED = "not_acknowledged"  # the device did not confirm it in time
    FAILED = "failed"  # it cannot be, or was not, delivered; `reason` says why
    EXPIRED = "expired"  # its time ran out before it left
    SUPERSEDED = "superseded"  # a later one took its place; `by` says which
    CANCELLED = "cancelled"  # somebody took it back; `by` says who


_S = State
_ENDS_BEFORE_SENT = {_S.FAILED, _S.EXPIRED, _S.SUPERSEDED, _S.CANCELLED}
# QUEUED ⇄ ANSWERING: an answer that was not, or perhaps not, delivered is put back.
# QUEUED → SENT: the door's report that it was answered came after it had been put back.
# NOT_ACKNOWLEDGED → ACKNOWLEDGED: The Things Stack sends it again by itself after a nack.
# SENDING → ACCEPTED and beyond: the network server's report may overtake our own outcome.
MOVES: dict[State, frozenset[State]] = {
    _S.REQUESTED: frozenset({_S.ENCODED, *_ENDS_BEFORE_SENT}),
    _S.ENCODED: frozenset({_S.QUEUED, *_ENDS_BEFORE_SENT}),
    _S.QUEUED: frozenset({_S.ANSWERING, _S.SENDING, _S.SENT, *_ENDS_BEFORE_SENT}),
    _S.ANSWERING: frozenset({_S.SENT, _S.QUEUED, *_ENDS_BEFORE_SENT}),
    _S.SENDING: frozenset(
        {_S.SENT, _S.ACCEPTED, _S.ACKNOWLEDGED, _S.NOT_ACKNOWLEDGED, *_ENDS_BEFORE_SENT}
    ),
    _S.SENT: frozenset({_S.ACCEPTED, _S.ACKNOWLEDGED, _S.NOT_ACKNOWLEDGED, _S.FAILED}),
    _S.ACCEPTED: frozenset({_S.ACKNOWLEDGED, _S.NOT_ACKNOWLEDGED, _S.FAILED}),
    _S.NOT_ACKNOWLEDGED: frozenset({_S.ACKNOWLEDGED, _S.FAILED}),
    _S.ACKNOWLEDGED: frozenset(),
    _S.FAILED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.SUPERSEDED: frozenset(),
    _S.CANCELLED: frozenset(),
}
WAITING = frozenset({_S.REQUESTED, _S.ENCODED, _S.QUEUED})
UNDER_WAY = frozenset({_S.ANSWERING, _S.SENDING})

QueueMode = Literal["replace", "first", "last"]
QueueWord = Literal["replace", "first", "last", "push"]
"""As people write it: `push` is The Things Stack's word for `last`."""
Priority = Literal["lowest", "low", "below_normal", "normal", "above_normal", "high", "highest"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
CORRELATION_IDS_MAX = 20
CORRELATION_ID_LENGTH_MAX = 100  # The Things Stack's limit of one


class DownlinkRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ask for a downlink: `payload` (bytes as they are) or `fields` (for the converter's encoder).

    `queue` None: the integration's default (`replace` on synchronous links, `last` elsewhere).
    `supersede_key`: takes the place of a waiting downlink with the same key.
    `priority` None: `normal`; a higher one leaves before those that wait with a lower one.
    `source` says who asked: a chain and node, or an application. `correlation_ids` are an
    application's own; they are kept, and go to network servers that tell of them again.
    """

    payload: bytes | None = None
    fields: dict[str, Any] | None = None
    f_port: int | None = None
    confirmed: bool = False
    queue: QueueMode | None = None
    priority: Priority | None = None
    expires_at_ms: int | None = None
    supersede_key: str = ""
    source: str = ""
    correlation_ids: tuple[str, ...] = ()


class Downlink(msgspec.Struct, frozen=True, omit_defaults=True):
    """A downlink and where it stands: a record of `downlink.status`, and an entry of the device's
    queue.

    `payload` is None until it is encoded. `window_key` is the request that carried it as an answer.
    Times are epoch milliseconds; `changed_ms` is the last move's.
    """

    id: str
    tenant: str
    device: str
    integration: str
    state: State
    requested_ms: int
    changed_ms: int
    trace_id: str = ""
    payload: bytes | None = None
    fields: dict[str, Any] | None = None
    f_port: int | None = None
    confirmed: bool = False
    queue: QueueMode = "last"
    priority: Priority | None = None
    expires_at_ms: int | None = None
    supersede_key: str = ""
    source: str = ""
    window_key: str = ""
    possibly_delivered: bool = False
    reason: str = ""
    by: str = ""
    detail: dict[str, Any] = {}
    correlation_ids: tuple[str, ...] = ()


def queue_mode(word: QueueWord | None) -> QueueMode | None:
    """Return the queue's mode of a word that people write."""
    return "last" if word == "push" else word


def may_move(current: State, target: State) -> bool:
    """Return whether a downlink's life allows this step."""
    return target in MOVES[current]
