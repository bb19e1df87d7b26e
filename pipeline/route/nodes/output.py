"""`output`: a message in; it goes back to the chain that runs this one, under a name."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.route.node import Node, Outcome
from pipeline.route.visit import Visit


class Output(Node):
    """Hands the message back to the chain that runs this one, under a name; its way here ends.

    There the `chain` node's `outputs` say where messages of that name go on. Where no chain runs
    this one (the message entered it by `on`, or a timer took it up), its way just ends.

    - name: say that it is warm
      output: warm
    """

    verb: ClassVar[str] = "output"

    output: str = Field(min_length=1, max_length=64)

    def apply(self, visit: Visit) -> Outcome:
        """Hand it back; the way ends."""
        visit.output(self.output)
        return []

    def hands_back(self) -> tuple[str, ...]:
        """Return its name for the message."""
        return (self.output,)


NODE = Output
