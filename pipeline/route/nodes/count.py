"""`count`: a message in, a new message with its number among the device's out by `then`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Condition, Target
from pipeline.route.memory import recall, remember
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, Place
from pipeline.route.visit import Visit


class CountConfig(Part):
    """Where the count goes, and when it begins anew."""

    into: Place
    every: int = Field(
        default=1, ge=1, le=1_000_000, description="Only each so many-th message goes on."
    )
    restart: Condition | None = Field(
        default=None, description="Where it is true, the count begins anew with this message."
    )


class Count(Onward):
    """Counts the messages of the device that come here; the first is 1.

    With `every: 10` each tenth goes on by `then`, all others leave by `otherwise`. How many
    messages pass each node of all devices says the metric `funicular_rule_nodes_total`.

    - name: number it
      count: {into: metadata.number, every: 2, restart: telemetry.battery < 10}
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "count"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    count: CountConfig
    otherwise: Target | None = Field(default=None, description="Between each `every`-th message.")

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then` or `otherwise`."""
        wanted = self.count
        count = recall(visit, self.verb).get("count", 0) + 1
        if wanted.restart is not None and wanted.restart.test(visit.scope):
            count = 1
        remember(visit, self.verb, {"count": count})
        draft = Draft(visit.message)
        draft.put(wanted.into, count)
        return [("otherwise" if count % wanted.every else "then", draft.message())]


NODE = Count
