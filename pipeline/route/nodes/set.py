"""`set`: a message in, a new message with changed telemetry or metadata out by `then`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from pipeline.part import Part
from pipeline.route.fields import FieldFault, TemplateMap
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, path_of
from pipeline.route.visit import Visit


def _paths(value: Any) -> Any:
    if isinstance(value, dict):
        for path in value:
            try:
                path_of(path)
            except FieldFault as fault:
                raise FieldFault(fault.message, path=(path,), suggestion=fault.suggestion) from None
    return value


class SetConfig(Part):
    """Values by their places."""

    fields: Annotated[TemplateMap, BeforeValidator(_paths)]


class Set(Onward):
    """Sets values in the message: under `telemetry` or `metadata`, by their dotted path.

    All values are computed from the message as it came. The device's state is not touched; for
    that, see `set_attributes`.

    - name: shape
      set:
        fields:
          telemetry.temperature_f: "${telemetry.temperature * 1.8 + 32.0}"
          metadata.site.name: A
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "set"
    acts: ClassVar[bool] = False

    set: SetConfig

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`."""
        draft = Draft(visit.message)
        for path, value in self.set.fields(visit.scope).items():
            draft.put(path_of(path), value)
        return [("then", draft.message())]


NODE = Set
