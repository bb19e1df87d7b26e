"""`collect`: messages in, one message with what they brought as a list out by `then`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.model.event import DeviceMessage
from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import expect, recall, remember
from pipeline.route.message import time_text
from pipeline.route.moments import Span, as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Draft, Place, look
from pipeline.route.visit import Visit

ITEMS_MAX = 1_000
_TIMER = "full"


class Collection(Part):
    """What is collected, until when, and where the list goes."""

    of: Place | None = Field(default=None, description="A value; all telemetry by default.")
    into: Place
    messages: int = Field(
        default=100, ge=2, le=ITEMS_MAX, description="Goes on when there are so many."
    )
    within: Span = Field(description="Goes on this long after the first, however many there are.")


class Collect(Onward):
    """Collects what messages of a device bring, and sends it on as one list.

    The list goes on by `then` when it has so many items, or when its time is over. Its message has
    no other telemetry; each item is a mapping of `time` (the message's) and `value`. Each message
    leaves by `otherwise` when it comes; one without the value is not collected.

    - name: in one go
      collect: {of: telemetry.temperature, into: telemetry.readings, messages: 50, within: 1h}
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "collect"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    collect: Collection
    otherwise: Target | None = Field(default=None, description="Each message when it comes.")

    def apply(self, visit: Visit) -> Outcome:
        """Keep what the message brings; return `otherwise`, and the list where it is full."""
        wanted, message = self.collect, visit.message
        value: Any = message.telemetry if wanted.of is None else look(message, wanted.of)
        if value is MISSING:
            return "otherwise"
        kept = recall(visit, self.verb)
        items = [*kept.get("items", ()), [as_of(visit), value]]
        if len(items) >= wanted.messages:
            visit.cancel_wake(_TIMER)
            visit.remember(None)
            return [("then", self._list(visit, items)), ("otherwise", message)]
        due_ms = kept.get("due_ms", 0)
        if due_ms <= visit.now_ms:
            due_ms = visit.now_ms + wanted.within
        visit.wake(_TIMER, due_ms)
        remember(visit, self.verb, {"items": items, "due_ms": due_ms})
        return "otherwise"

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the list by `then`."""
        kept = recall(visit, self.verb)
        expect(kept, self.verb)
        visit.remember(None)
        return [("then", self._list(visit, kept["items"]))]

    def _list(self, visit: Visit, items: list[Any]) -> DeviceMessage:
        draft = Draft(visit.successor("list", telemetry={}, payload=None, f_cnt=None))
        told = [{"time": time_text(time_ms), "value": value} for time_ms, value in items]
        draft.put(self.collect.into, told)
        return draft.message()


NODE = Collect
