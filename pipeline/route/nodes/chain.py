"""`chain`: a message in, run through another chain; the same message out by `then`, or what that
chain hands back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from pipeline.route.fields import Target
from pipeline.route.node import Link, Onward, Outcome
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import Known, Problem, suggest


class RunChain(Onward):
    """Runs another chain on the message, whatever that chain's `on` says, then goes on.

    The message goes on as it came; attributes that the other chain sets are seen. Where a node
    fails there and nobody takes it, this node fails and all that the other chain did is undone.

    With `outputs`, what the other chain hands back by its `output` nodes goes on instead, by name;
    `then` takes names that are not listed, and the message itself where nothing was handed back.

    - name: housekeeping
      chain: housekeeping
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "chain"

    chain: str = Field(min_length=1, description="A chain's name.")
    outputs: dict[str, Target] = Field(
        default={}, description="Where messages go that the other chain hands back, by name."
    )

    def apply(self, visit: Visit) -> Outcome:
        """Run the chain; return `then`, or what was handed back by its outlets."""
        handed = visit.enter(self.chain)
        if not self.outputs or not handed:
            return "then"
        return [(self.outputs.get(name, "then"), message) for name, message in handed]

    def links(self) -> Iterator[Link]:
        """Yield a link an output, called as its target."""
        for name, target in self.outputs.items():
            yield Link(target, target, ("outputs", name))
        yield from super().links()

    def check(self, known: Known) -> Iterator[Problem]:
        """Yield a problem where there is no such chain."""
        if self.chain not in known.chains:
            yield Problem(
                ("chain",),
                f"there is no chain `{self.chain}`",
                suggest(self.chain, known.chains) or f"write chains/{self.chain}.yaml",
            )

    def calls(self) -> tuple[str, ...]:
        """Return the other chain."""
        return (self.chain,)

    def awaits(self) -> tuple[tuple[str, str], ...]:
        """Return the names of `outputs`, all of the one chain."""
        return tuple((self.chain, name) for name in self.outputs)


NODE = RunChain
