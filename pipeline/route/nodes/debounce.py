"""`debounce`: messages in, the last one out by `then` when no more have come for a while."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import expect, recall, remember
from pipeline.route.moments import Span
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit

_TIMER = "quiet"


class Quiet(Part):
    """How long nothing must have come."""

    quiet: Span
    at_most: Span | None = Field(
        default=None, description="Goes on after this time also where messages keep coming."
    )


class Debounce(Onward):
    """Waits until a device has said nothing more for a while; then its last message goes on.

    Each message leaves by `otherwise` when it comes, where that is named. What waits stays across
    restarts.

    - name: settled
      debounce: {quiet: 30s, at_most: 5m}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "debounce"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    debounce: Quiet
    otherwise: Target | None = Field(default=None, description="Each message when it comes.")

    def apply(self, visit: Visit) -> Outcome:
        """Keep the message, in the place of the one before; return `otherwise`."""
        wanted, now_ms = self.debounce, visit.now_ms
        since_ms = recall(visit, self.verb).get("since_ms", now_ms)
        due_ms = now_ms + wanted.quiet
        if wanted.at_most is not None:
            due_ms = min(due_ms, since_ms + wanted.at_most)
        visit.wake(_TIMER, due_ms)
        remember(visit, self.verb, {"since_ms": since_ms})
        return "otherwise"

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the last message by `then`."""
        expect(recall(visit, self.verb), self.verb)
        visit.remember(None)
        return "then"


NODE = Debounce
