"""Goes on with a message at a node: when a timer is due, a reply has come, or another device
handed it over.

In: a position (chain and node by name) and a message. Out: what the chain did from there; where the
node is gone, a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage
from pipeline.model.record import derive_id
from pipeline.route.chain import Step
from pipeline.route.node import Node, Outcome
from pipeline.route.runner import cascade, walk
from pipeline.route.turn import Turn
from pipeline.route.visit import Start, Visit


class Place(NamedTuple):
    """Where a message goes on; `rules` is the version that it was left there by."""

    chain: str
    node: str
    rules: str


def step_at(turn: Turn, place: Place) -> Step | None:
    """Return the step that a place names in the rules in force, None where it is gone."""
    chain = turn.rules.chains.get(place.chain) if turn.rules else None
    at = chain.positions.get(place.node) if chain else None
    return None if chain is None or at is None else chain.steps[at]


def resume(
    turn: Turn,
    place: Place,
    message: DeviceMessage,
    apply: Callable[[Node, Visit], Outcome],
    *,
    tag: str,
    time_ms: int,
) -> None:
    """Take a message on from a node, `apply` in the place of the node's own.

    `tag` tells apart all that this causes from what the message caused before; `time_ms` is when
    attributes are as of. Where the node is gone the message is buried.
    """
    step = step_at(turn, place)
    if step is None:
        turn.bury(_gone(place), tag=tag, record=turn.record_of(message))
        return
    assert turn.rules is not None, "it has the step"
    chain, node = turn.rules.chains[place.chain], step.node

    def first(visit: Any) -> Outcome:
        return apply(node, visit)

    turn.hops = message.hops
    visit = Visit(turn, chain, message, base=derive_id(message.id, tag), time_ms=time_ms)
    walk(turn, visit, chain, message, Start(chain.positions[place.node], first), tag=tag)
    cascade(turn)


def _gone(place: Place) -> MessageError:
    return MessageError(
        "the node that the message waited at is gone",
        code="node_gone",
        chain=place.chain,
        node=place.node,
        rules=place.rules,
    )
