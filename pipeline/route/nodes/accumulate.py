"""`accumulate`: a message in, a new message with running summaries out by `then`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Condition
from pipeline.route.memory import recall, remember
from pipeline.route.moments import as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Draft, Place, path_of
from pipeline.route.summary import Summarized, begin, join, result, value_for
from pipeline.route.visit import Visit


class Accumulated(Part):
    """What is summed up, and since when."""

    values: dict[str, Summarized] = Field(
        min_length=1,
        max_length=32,
        description="By name: `count`, `sum`, `min`, `max`, `mean`, `first`, `last` or `distinct` "
        "(how many different values) of a place.",
    )
    into: Place = Field(default=path_of("telemetry.total"), description="Where they stand.")
    restart: Condition | None = Field(
        default=None, description="Where it is true, all begin anew with this message."
    )


class Accumulate(Onward):
    """Adds running summaries to the message: of all that came here of the device until now.

    A message without a value does not count for it. For summaries of a span of time, see `window`;
    for a sum over attributes, `set_attributes` with an expression.

    - name: since the battery was new
      accumulate:
        values:
          coldest: {min: telemetry.temperature}
          mean: {mean: telemetry.temperature}
          messages: {count: telemetry.battery}
        into: telemetry.ever
        restart: telemetry.battery > 99
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "accumulate"
    acts: ClassVar[bool] = False

    accumulate: Accumulated

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`. MessageError (code `number`): a value is no number."""
        wanted, message = self.accumulate, visit.message
        before: dict[str, Any] = recall(visit, self.verb).get("kept", {})
        if wanted.restart is not None and wanted.restart.test(visit.scope):
            before = {}
        kept: dict[str, Any] = {}
        time_ms = as_of(visit)
        for name, summary in wanted.values.items():
            value = value_for(summary, message)
            mark = f"{name} {summary.function} {summary.place}"  # another config begins anew
            if mark in before:
                kept[mark] = before[mark]
            if value is not MISSING:
                one = begin(summary.function, value, time_ms)
                kept[mark] = join(summary.function, kept[mark], one) if mark in kept else one
        remember(visit, self.verb, {"kept": kept})
        draft = Draft(message)
        totals = {}
        for name, summary in wanted.values.items():
            mark = f"{name} {summary.function} {summary.place}"
            if mark in kept:
                totals[name] = result(summary.function, kept[mark])
        draft.put(wanted.into, totals)
        return [("then", draft.message())]


NODE = Accumulate
