"""The port of a rule node, and how the folder is scanned for them.

A node is a frozen pydantic model in `route/nodes/<verb>.py`, named there as `NODE`: what a user
writes is its fields, its docstring ends in an example (YAML), its outlets say where messages may
leave, and `apply` decides. Plug-ins of others: entry points `funicular.nodes`.

In: a `Visit` (the message, the device's state, the time). Out: an `Outcome`, and effects through
the visit's methods. A node keeps nothing itself: the same visit always gives the same outcome.
"""

from __future__ import annotations

import textwrap
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.expression import Expression, Value
from pipeline.model.event import DeviceMessage
from pipeline.part import Part
from pipeline.ports import Script
from pipeline.route.fields import NodeName, Target
from pipeline.rulebook.catalogue import Known, Problem
from pipeline.scan import Parts

if TYPE_CHECKING:
    from pipeline.route.visit import Visit

THEN = "then"
FAILURE = "failure"
STOP = "stop"

Outcome = str | list[tuple[str, DeviceMessage]]
"""An outlet's name: the message leaves by it as it is. A list: each message leaves by its outlet,
one after the other, each to its end; an empty list ends the way here."""


class Reply(NamedTuple):
    """How a call has ended. `answer` is JSON; `data` what the node kept with the call."""

    how: Literal["replied", "failed", "timeout"]
    answer: Any = None
    reason: str = ""
    message: str = ""
    data: Any = None


class Link(NamedTuple):
    """Where an outlet leads. `target` None: `then` leads to the next node, all others to `stop`.

    `path` is where the user wrote it, inside the node.
    """

    outlet: str
    target: str | None
    path: tuple[str | int, ...]


class Node(Part):
    """A rule node. Subclasses set `verb` (the YAML's key, and the module's name) and `outlets`."""

    verb: ClassVar[str]
    outlets: ClassVar[tuple[str, ...]] = ()
    """All but `failure`, which every node has. An outlet's target is the field of its name."""
    failing: ClassVar[tuple[str, ...]] = ()
    """Those of them that make the node fail where they are not named."""
    acts: ClassVar[bool] = True
    """Whether it does anything but send messages on; one that does not has to lead somewhere."""

    name: NodeName
    on_failure: Target | None = Field(
        default=None, description="Where a message goes that this node fails on."
    )

    @classmethod
    def filled(
        cls,
        item: Mapping[str, Any],
        known: Known,  # noqa: ARG003 - the port's shape
    ) -> tuple[Mapping[str, Any], Sequence[Problem]]:
        """Return what a user wrote with what it takes from files filled in, and what lacks."""
        return item, ()

    @abstractmethod
    def apply(self, visit: Visit) -> Outcome:
        """Return where the message goes. MessageError: it leaves by `failure`; what this node did
        is undone.

        Called once for each message that comes to the node; must not block, nor change the message
        or what it holds.
        """

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return where the message goes, when a timer that `visit.wake` set is due.

        `visit.message` is the message of the visit that set it; `data` what was given with it.
        """
        raise MessageError(f"`{self.verb}` has no timers; was it another node before?", code="node")

    def apply_arrival(self, visit: Visit) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return where a message goes that another device handed over by this node."""
        raise MessageError(
            f"`{self.verb}` hands no messages over; was it another node before?", code="node"
        )

    def apply_reply(self, visit: Visit, reply: Reply) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return where the message goes, when a call that it waits for has ended."""
        raise MessageError(f"`{self.verb}` calls nobody; was it another node before?", code="node")

    def hears(self, scope: Mapping[str, Any]) -> bool:  # noqa: ARG002 - the port's shape
        """Return whether a later message of the device, as `scope` has it, is the reply."""
        return False

    def links(self) -> Iterator[Link]:
        """Yield where each outlet leads."""
        for outlet in self.outlets:
            yield Link(outlet, getattr(self, outlet), (outlet,))
        if self.on_failure is not None:
            yield Link(FAILURE, self.on_failure, ("on_failure",))

    def check(self, known: Known) -> Iterator[Problem]:  # noqa: ARG002 - the port's shape
        """Yield what is wrong with the names that this node refers to; paths inside the node."""
        yield from ()

    def calls(self) -> tuple[str, ...]:
        """Return the chains that this node runs."""
        return ()

    def scripts(self) -> tuple[tuple[tuple[str | int, ...], Script], ...]:
        """Return the scripts that it runs, each with the path to it inside the node."""
        return ()

    def awaits(self) -> tuple[tuple[str, str], ...]:
        """Return what it waits for of the chains that it runs: chain and name of an output."""
        return ()

    def hands_back(self) -> tuple[str, ...]:
        """Return the names by which it hands messages back to the chain that runs this one."""
        return ()

    def reads(self) -> frozenset[str]:
        """Return the names that its expressions speak of."""
        return frozenset(_names_in(self))


class Onward(Node):
    """A node whose message goes on by `then`."""

    outlets: ClassVar[tuple[str, ...]] = (THEN,)

    then: Target | None = Field(
        default=None, description="The node to go on with, or `stop`; the next one by default."
    )


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, Expression | Value):
        yield from value.names
    elif isinstance(value, Part):
        for field in type(value).model_fields:
            yield from _names_in(getattr(value, field))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _names_in(item)


@cache
def nodes() -> Mapping[str, type[Node]]:
    """Return all nodes by verb: the files of `nodes/` and the plug-ins of others."""
    return Parts("pipeline.route.nodes", "NODE", "funicular.nodes")


def example(node: type[Node]) -> str:
    """Return the example of a node's docstring as YAML: a list of nodes."""
    text = textwrap.dedent("    " + (node.__doc__ or ""))
    start = text.find("- name:")
    return textwrap.dedent(" " * (start - text.rfind("\n", 0, start) - 1) + text[start:])
