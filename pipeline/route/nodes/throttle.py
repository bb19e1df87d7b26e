"""`throttle`: messages in, so many a span of time out by `then`, the others by `otherwise`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import expect, recall, remember
from pipeline.route.moments import Span, arrived
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit

_TIMER = "end"


class Rate(Part):
    """How many a device may send on."""

    messages: int = Field(default=1, ge=1, le=1_000_000)
    per: Span
    take: Literal["first", "last"] = Field(
        default="first",
        description="`last`: the last message of each span goes on, when the span is over.",
    )

    @model_validator(mode="after")
    def _one_last(self) -> Rate:
        if self.take == "last" and self.messages != 1:
            raise ValueError("`take: last` sends one message on; leave `messages` out")
        return self


class Throttle(Onward):
    """Lets at most so many messages of a device go on in a span of time.

    The span begins with the first message, by when it was received; those over the limit leave by
    `otherwise`. With `take: last` every message leaves by `otherwise` at once, and the last one of
    the span goes on by `then` at its end, also across restarts.

    - name: at most one a minute
      throttle: {per: 1m}
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "throttle"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    throttle: Rate
    otherwise: Target | None = Field(default=None, description="Where there were enough.")

    def apply(self, visit: Visit) -> Outcome:
        """Return `then` or `otherwise`."""
        wanted, now_ms = self.throttle, arrived(visit)
        kept = recall(visit, self.verb, wanted.take)
        if wanted.take == "last":
            return self._wait(visit, kept)
        start_ms, count = kept.get("start_ms"), kept.get("count", 0)
        if start_ms is None or now_ms - start_ms >= wanted.per:
            start_ms, count = now_ms, 0
        if count >= wanted.messages:
            return "otherwise"
        remember(visit, self.verb, {"start_ms": start_ms, "count": count + 1}, wanted.take)
        return "then"

    def _wait(self, visit: Visit, kept: dict[str, Any]) -> Outcome:
        """Keep the message until the span is over, in the place of the one before."""
        due_ms = kept.get("due_ms", 0)
        if due_ms <= visit.now_ms:
            due_ms = visit.now_ms + self.throttle.per
        visit.wake(_TIMER, due_ms)
        remember(visit, self.verb, {"due_ms": due_ms}, self.throttle.take)
        return "otherwise"

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the span's last message by `then`."""
        expect(recall(visit, self.verb, "last"), self.verb)
        visit.remember(None)
        return "then"


NODE = Throttle
