"""`send`: a message in, a delivery on `delivery.<tenant>.<sink>`, the message out by `then`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Template
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import Known, Problem, suggest


class Destination(Part):
    """A sink, and what it gets."""

    to: str = Field(min_length=1, description="A sink's name.")
    body: Template | None = Field(
        default=None, description="The whole message by default; strings may hold `${ … }`."
    )


class Send(Onward):
    """Hands the message to a sink: as a whole, or as `body` says.

    - name: archive
      send: {to: archive}
    - name: tell the application
      send:
        to: application
        body: {device: "${device.name}", warm: "${telemetry.temperature > 30}"}
    """

    verb: ClassVar[str] = "send"

    send: Destination

    def apply(self, visit: Visit) -> Outcome:
        """Emit the delivery; return `then`."""
        wanted = self.send
        body = visit.plain() if wanted.body is None else wanted.body(visit.scope)
        visit.send(wanted.to, body)
        return "then"

    def check(self, known: Known) -> Iterator[Problem]:
        """Yield a problem where there is no such sink."""
        if self.send.to not in known.sinks:
            yield Problem(
                ("send", "to"),
                f"there is no sink `{self.send.to}`",
                suggest(self.send.to, known.sinks) or f"write sinks/{self.send.to}.yaml",
            )


NODE = Send
