"""Runs chains: a message through one, and the messages that changes of attributes cause.

In: a turn and a message. Out: all that the chains did, in the turn; where a chain failed, its dead
letter instead.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage
from pipeline.model.record import derive_id
from pipeline.route.chain import Chain
from pipeline.route.message import ATTRIBUTES_UPDATED
from pipeline.route.turn import Pending, Turn
from pipeline.route.visit import BEGIN, Start, Visit


def enter(turn: Turn, chain: Chain, message: DeviceMessage) -> None:
    """Run a chain on a message from its start, for the first time."""
    # A device's clock that is ahead must not lock attributes against later changes.
    time_ms = min(message.time_ms, message.received_ms)
    visit = Visit(turn, chain, message, base=message.id, time_ms=time_ms)
    walk(turn, visit, chain, message)


def walk(
    turn: Turn,
    visit: Visit,
    chain: Chain,
    message: DeviceMessage,
    start: Start = BEGIN,
    *,
    tag: str = "",
) -> None:
    """Take a message through a chain; where it fails, all that the chain did is undone.

    But what a timer's own node did stands: else a schedule would end with the first failure.
    """
    mark = turn.mark()
    try:
        visit.walk(chain, message, start)
    except MessageError as fault:
        turn.undo(visit.stands or mark)
        where = {"chain": chain.name, "node": visit.step.name}
        if visit.step.chain != chain.name:
            where["sub_chain"] = visit.step.chain
        told = MessageError(fault.message, code=fault.code)
        told.detail = {**fault.detail, **where}
        turn.bury(told, tag=tag or chain.tag, record=turn.record_of(message))


def cascade(turn: Turn) -> None:
    """Tell the chains of changes of attributes, and of the changes that come of that."""
    if turn.rules is None or not turn.pending:
        return
    known = turn.known()
    chains = turn.rules.matching(
        ATTRIBUTES_UPDATED, known.get("integration", ""), known.get("type", "")
    )
    if not chains:
        turn.pending.clear()
        return
    limits = turn.work.limits
    waiting: deque[tuple[Pending, int]] = deque()
    told = 0
    depth = 0
    while True:
        waiting.extend([(pending, depth + 1) for pending in turn.pending])
        turn.pending.clear()
        if not waiting:
            return
        pending, depth = waiting.popleft()
        message = _attributes_message(turn, pending, known)
        told += 1
        if depth > limits.cascade_depth_max or told > limits.cascade_messages_max:
            _give_up(turn, message, told, depth, len(waiting))
            if told > limits.cascade_messages_max:
                return
            continue
        for chain in chains:
            enter(turn, chain, message)


def _give_up(turn: Turn, message: DeviceMessage, told: int, depth: int, left: int) -> None:
    """Bury a message about a change; the change itself stands."""
    fault = MessageError(
        f"changes of attributes go on causing changes: {told} messages by one, {depth} deep",
        code="cascade",
        by=message.metadata["by"],
        untold=left,
    )
    turn.bury(fault, tag="cascade", record=turn.record_of(message))


def _attributes_message(turn: Turn, pending: Pending, known: dict[str, Any]) -> DeviceMessage:
    """Return the message by which chains learn of a change. Its scope stands in the metadata."""
    change = pending.change
    return DeviceMessage(
        id=derive_id(pending.cause, pending.tag),
        type=ATTRIBUTES_UPDATED,
        tenant=turn.tenant,
        device=turn.device,
        integration=known.get("integration", ""),
        time_ms=pending.time_ms,
        received_ms=max(pending.time_ms, turn.now_ms),  # clocks of two workers may differ
        device_type=known.get("type", ""),
        device_kind=known.get("kind", "device"),
        customer=known.get("customer", ""),
        group=known.get("group", ""),
        dev_eui=known.get("dev_eui", ""),
        attributes=change.values,
        metadata={"scope": change.scope, "by": pending.by},
        changed=change.changed,
        previous=change.previous,
        hops=turn.hops,
    )
