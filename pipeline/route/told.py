"""What another device says to this one: messages that it tells or hands over, relations.

In: `DeviceMessage` with a `teller`, and `RelationChange`, which route itself wrote to
`device.events` for another device. Out: chains entered or gone on with; relations kept.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage, Forget, RelationChange
from pipeline.model.record import derive_id
from pipeline.route import commands, relations
from pipeline.route.node import Node, Outcome
from pipeline.route.resume import Place, resume
from pipeline.route.runner import cascade, enter
from pipeline.route.turn import DEVICE_PART, Turn
from pipeline.route.visit import Visit


def take_told(turn: Turn, event: DeviceMessage, only_chain: str | None) -> None:
    """Let a message that another device sent have its effects here.

    A device that was never heard becomes known where the teller said its type; else the message is
    buried, since its name is probably a mistake. `only_chain`: a replay for that chain alone.
    """
    rules = turn.rules
    assert rules is not None, "the stage has looked"
    known = turn.known()
    if not known:
        if not event.device_type:
            text = f"there is no device `{turn.device}`, which `{event.teller}` has told"
            turn.bury(MessageError(text, code="device_unknown", by=event.teller), tag="told")
            return
        known = {
            "first_seen_ms": event.received_ms,
            "type": event.device_type,
            "integration": "",
            "kind": event.device_kind,
        }
        turn.state.put(turn.key, DEVICE_PART, known)
    message = _of_receiver(event, known)
    turn.hops = message.hops
    if event.resume is not None:
        place = Place(event.resume.chain, event.resume.node, rules.version)
        resume(turn, place, message, _arrive, tag="r", time_ms=_as_of(message))
        return
    if only_chain is not None:
        chains = [rules.chains[only_chain]] if only_chain in rules.chains else []
    else:
        chains = list(rules.matching(message.type, message.integration, message.device_type))
    for chain in chains:
        enter(turn, chain, message)
    cascade(turn)


def _arrive(node: Node, visit: Visit) -> Outcome:
    return node.apply_arrival(visit)


def _as_of(message: DeviceMessage) -> int:
    return min(message.time_ms, message.received_ms)


def _of_receiver(event: DeviceMessage, known: dict[str, Any]) -> DeviceMessage:
    return msgspec.structs.replace(
        event,
        integration=known.get("integration", ""),
        device_type=known.get("type", ""),
        device_kind=known.get("kind", "device"),
        customer=known.get("customer", ""),
        group=known.get("group", ""),
        dev_eui=known.get("dev_eui", ""),
        resume=None,
    )


def change_relation(turn: Turn, event: RelationChange) -> None:
    """Keep or forget a relation, as the other device says."""
    if not event.present:
        relations.remove(turn.state, turn.key, event.way, event.relation, event.other)
        return
    try:
        relations.put(
            turn.state,
            turn.key,
            event.way,
            event.relation,
            event.other,
            relations_max=turn.work.limits.relations_max,
        )
    except MessageError as fault:
        turn.bury(fault, tag="relation")


def forget(turn: Turn, event: Forget) -> None:
    """Forget all of the device; those that it relates to are told that it no longer does."""
    number = 0
    for way in relations.WAYS:
        for relation, others in turn.relations()[way].items():
            for other in others:
                number += 1
                change = RelationChange(
                    id=derive_id(event.id, f"p{number}"),
                    tenant=turn.tenant,
                    device=other,
                    time_ms=event.time_ms,
                    relation=relation,
                    way=relations.back(way),
                    other=turn.device,
                    present=False,
                )
                turn.tell(other, change.id, change)
    commands.forget(turn, event)
