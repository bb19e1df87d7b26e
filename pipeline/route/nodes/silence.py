"""`silence`: messages in, the last one out by `then` when the device has been silent for a time."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import expect, recall, remember
from pipeline.route.message import time_text
from pipeline.route.moments import Span
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, path_of
from pipeline.route.visit import Visit

_TIMER = "silent"
_SILENCE = path_of("metadata.silence")


class SilenceConfig(Part):
    """How long a device may say nothing."""

    after: Span
    again_every: Span | None = Field(
        default=None, description="Says so again each time, while it stays silent."
    )


class Silence(Onward):
    """Notices that a device has fallen silent: nothing of it came here for a time.

    Then its last message goes on by `then`, with `metadata.silence` (`since`, and which `notice`
    of this silence it is). A message that ends a silence leaves by `back`, where that is named;
    every other by `otherwise`. A device that has never spoken is not known here.

    - name: still there
      silence: {after: 2h, again_every: 1d}
      back: welcome
    - name: warn
      log: {level: warning, message: "${device.name} is silent since ${metadata.silence.since}"}
      then: stop
    - name: welcome
      log: {message: "${device.name} is back"}
    """

    verb: ClassVar[str] = "silence"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise", "back")

    silence: SilenceConfig
    otherwise: Target | None = Field(default=None, description="Each message when it comes.")
    back: Target | None = Field(default=None, description="A message that ends a silence.")

    def apply(self, visit: Visit) -> Outcome:
        """Begin to wait anew; return `back` or `otherwise`."""
        silent = recall(visit, self.verb).get("notices", 0) > 0
        visit.wake(_TIMER, visit.now_ms + self.silence.after)
        remember(visit, self.verb, {"notices": 0})
        return "back" if silent and self.back else "otherwise"

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the last message by `then`."""
        kept = recall(visit, self.verb)
        expect(kept, self.verb)
        notice = kept["notices"] + 1
        remember(visit, self.verb, {"notices": notice})
        if self.silence.again_every is not None:
            visit.wake(_TIMER, visit.now_ms + self.silence.again_every)
        draft = Draft(visit.message)
        draft.put(_SILENCE, {"since": time_text(visit.message.received_ms), "notice": notice})
        return [("then", draft.message())]


NODE = Silence
