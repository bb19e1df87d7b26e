"""`filter`: a message in, the same message out by `then` or `otherwise`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.route.fields import Condition, Target
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Filter(Onward):
    """Goes on where an expression is true; where it is false, the message leaves by `otherwise`.

    Without `otherwise` its way ends there.

    - name: too warm
      filter: telemetry.temperature > 30
      otherwise: archive
    - name: warn
      log: {level: warning, message: "${device.name} has ${telemetry.temperature} °C"}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "filter"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    filter: Condition
    otherwise: Target | None = Field(default=None, description="Where it is false.")

    def apply(self, visit: Visit) -> Outcome:
        """Return `then` or `otherwise`."""
        return "then" if self.filter.test(visit.scope) else "otherwise"


NODE = Filter
