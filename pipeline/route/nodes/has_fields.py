"""`has_fields`: a message in, the same message out by `then` where it has all, or `otherwise`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.route.fields import Target
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Place, look
from pipeline.route.visit import Visit


class HasFields(Onward):
    """Goes on where the message brings all the named fields; else it leaves by `otherwise`.

    A field that is null counts as missing. For one field of several, use
    `filter: has(telemetry.a) || has(telemetry.b)`.

    - name: complete
      has_fields: [telemetry.temperature, telemetry.battery]
      otherwise: note
    - name: archive
      send: {to: archive}
      then: stop
    - name: note
      log: {level: warning, message: "${device.name} sent only a part"}
    """

    verb: ClassVar[str] = "has_fields"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    has_fields: tuple[Place, ...] = Field(min_length=1, max_length=256)
    otherwise: Target | None = Field(default=None, description="Where a field is missing.")

    def apply(self, visit: Visit) -> Outcome:
        """Return `then` or `otherwise`."""
        message = visit.message
        for place in self.has_fields:
            value = look(message, place)
            if value is MISSING or value is None:
                return "otherwise"
        return "then"


NODE = HasFields
