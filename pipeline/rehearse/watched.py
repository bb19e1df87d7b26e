"""A node in, the same node out with a watcher around each way by which messages come to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pipeline.route.node import Node, Outcome
from pipeline.route.visit import Visit

By = Literal["", "timer", "reply", "arrival"]
"""How a message came to a node: from the node before it; by a timer of the node that was due; by
the reply that it waited for there; by another device that handed it over."""

Apply = Callable[[Visit], Outcome]
Around = Callable[[Apply, By], Apply]


def watched(node: Node, around: Around) -> Node:
    """Return a copy of a node; `around` is given what it does, and returns what is done instead."""
    copy = node.model_copy()
    # A value of the instance stands before the class's method; pydantic's own way of setting one
    # takes fields only.
    methods = vars(copy)
    methods["apply"] = around(node.apply, "")
    methods["apply_arrival"] = around(node.apply_arrival, "arrival")

    def apply_timer(visit: Visit, data: Any) -> Outcome:
        return around(partial(_with, node.apply_timer, data), "timer")(visit)

    def apply_reply(visit: Visit, reply: Any) -> Outcome:
        return around(partial(_with, node.apply_reply, reply), "reply")(visit)

    methods["apply_timer"] = apply_timer
    methods["apply_reply"] = apply_reply
    return copy


def _with(apply: Callable[[Visit, Any], Outcome], more: Any, visit: Visit) -> Outcome:
    return apply(visit, more)
