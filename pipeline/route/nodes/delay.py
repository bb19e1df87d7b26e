"""`delay`: a message in, the same message out by `then` some time later."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.route.memory import recall, remember
from pipeline.route.moments import Span
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Delay(Onward):
    """Lets each message go on some time later; it waits in the device's state, across restarts.

    What it sees of attributes then is as they are then. It goes on in this chain only: another
    chain that ran this one went on at once. How many may wait is the device's limit of timers.

    - name: give it time
      delay: 10m
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "delay"
    acts: ClassVar[bool] = False

    delay: Span = Field(description="How long.")

    def apply(self, visit: Visit) -> Outcome:
        """Keep the message; its way ends for now."""
        number = recall(visit, self.verb).get("number", 0) + 1
        remember(visit, self.verb, {"number": number})
        # Timers of the same moment come in order of their names.
        visit.wake(f"{number:012d}", visit.now_ms + self.delay, self.verb)
        return []

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port
        """Return the message by `then`."""
        if data != self.verb:
            raise MessageError("the message waited at another kind of node", code="node")
        return "then"


NODE = Delay
