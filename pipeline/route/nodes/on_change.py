"""`on_change`: a message in, the same message out by `then` where a value is new."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, FiniteFloat

from pipeline.part import Part
from pipeline.route.attributes import same
from pipeline.route.fields import Target
from pipeline.route.memory import recall, remember
from pipeline.route.moments import Span, as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Place, look
from pipeline.route.visit import Visit


class Watched(Part):
    """Which values, and what counts as new."""

    of: tuple[Place, ...] = Field(min_length=1, max_length=64)
    by: FiniteFloat = Field(
        default=0.0, ge=0, description="How far a number must have moved since it last went on."
    )
    at_least_every: Span | None = Field(
        default=None, description="Goes on after this time also where nothing is new."
    )


class OnChange(Onward):
    """Goes on where one of the values differs from the last that went on; else by `otherwise`.

    The first message of a device goes on. Values that a message does not bring stay as they were,
    and a message that is older than the last (by its time) is never news.

    - name: news only
      on_change: {of: [telemetry.temperature, telemetry.battery], by: 0.5, at_least_every: 1h}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "on_change"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    on_change: Watched
    otherwise: Target | None = Field(default=None, description="Where nothing is new.")

    def apply(self, visit: Visit) -> Outcome:
        """Return `then` or `otherwise`."""
        wanted, message = self.on_change, visit.message
        kept = recall(visit, self.verb)
        time_ms = as_of(visit)
        last_ms: int | None = kept.get("time_ms")
        if last_ms is not None and time_ms < last_ms:
            return "otherwise"
        known: dict[str, Any] = kept.get("values", {})
        values = {}
        news = brought = False
        for place in wanted.of:
            name = str(place)
            value = look(message, place)
            if value is not MISSING:
                news = news or name not in known or self._moved(known[name], value)
                values[name] = value
                brought = True
            elif name in known:
                values[name] = known[name]
        every = wanted.at_least_every
        due = brought and every and last_ms is not None and time_ms - last_ms >= every
        if not news and not due:
            return "otherwise"
        remember(visit, self.verb, {"values": values, "time_ms": time_ms})
        return "then"

    def _moved(self, before: Any, now: Any) -> bool:
        by = self.on_change.by
        if by and _is_number(before) and _is_number(now):
            return bool(abs(now - before) >= by)
        return not same(before, now)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NODE = OnChange
