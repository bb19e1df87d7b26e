"""`switch`: a message in, the same message out to the first case that is true, or `otherwise`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Condition, Target
from pipeline.route.node import Link, Node, Outcome
from pipeline.route.visit import Visit


class Case(Part):
    """One way out of a switch."""

    when: Condition
    to: Target


class Switch(Node):
    """Sends the message on to the first case whose `when` is true, else by `otherwise`.

    Its outlets are called as the nodes that they lead to.

    - name: which
      switch:
        - when: telemetry.battery < 10
          to: low battery
        - when: telemetry.temperature > 30
          to: archive
      otherwise: stop
    - name: low battery
      set_attributes: {scope: server, values: {battery_low: true}}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "switch"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("otherwise",)

    switch: tuple[Case, ...] = Field(min_length=1)
    otherwise: Target | None = Field(default=None, description="Where no case is true.")

    def apply(self, visit: Visit) -> Outcome:
        """Return the first true case's target, or `otherwise`."""
        scope = visit.scope
        for case in self.switch:
            if case.when.test(scope):
                return case.to
        return "otherwise"

    def links(self) -> Iterator[Link]:
        """Yield a link a case, called as its target."""
        for number, case in enumerate(self.switch):
            yield Link(case.to, case.to, ("switch", number, "to"))
        yield from super().links()


NODE = Switch
