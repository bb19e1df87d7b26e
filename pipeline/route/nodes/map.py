"""`map`: a message in, a message with new telemetry or metadata out by `then`."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from pydantic import model_validator

from pipeline.errors import MessageError
from pipeline.expression import Value
from pipeline.part import Part
from pipeline.route.fields import Template
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Mapping(Part):
    """The message's new content; what is left out stays as it is."""

    telemetry: Template | None = None
    metadata: Template | None = None

    @model_validator(mode="after")
    def _something(self) -> Mapping:
        if self.telemetry is None and self.metadata is None:
            raise ValueError("needs `telemetry`, `metadata`, or both")
        return self


class Map(Onward):
    """Gives the message new telemetry, or metadata, made by expressions; the old is gone.

    A mapping, or one expression that gives a mapping. To change single values, use `set`.

    - name: only what counts
      map:
        telemetry:
          fahrenheit: "${telemetry.temperature * 1.8 + 32.0}"
          battery: {percent: "${telemetry.battery}", low: "${telemetry.battery < 10}"}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "map"
    acts: ClassVar[bool] = False

    map: Mapping

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`. MessageError (code `map`): it would be no mapping."""
        changes = {}
        for field in ("telemetry", "metadata"):
            template: Value | None = getattr(self.map, field)
            if template is not None:
                changes[field] = _mapping(template(visit.scope), field)
        return [("then", msgspec.structs.replace(visit.message, **changes))]


def _mapping(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MessageError(f"the new {field} must be a mapping", code="map", field=field)
    return value


NODE = Map
