"""`set`: a message in, a new message with changed telemetry or metadata out by `then`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import BeforeValidator

from pipeline.errors import MessageError
from pipeline.route.fields import FieldFault, Part, TemplateMap
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit

_PLACES = ("telemetry", "metadata")


def _paths(value: Any) -> Any:
    if isinstance(value, dict):
        for path in value:
            names = path.split(".") if isinstance(path, str) else []
            if len(names) < 2 or names[0] not in _PLACES or not all(names):
                last = str(path).rpartition(".")[2] or "name"
                raise FieldFault(
                    f"`{path}` is no place in the message",
                    path=(path,),
                    suggestion=f"write a path like `telemetry.{last}` or `metadata.{last}`",
                )
    return value


def _put(whole: dict[str, Any], names: list[str], value: Any, path: str) -> None:
    """Set a value at a path; mappings on the way are copied, since the message stays as it is."""
    for name in names[:-1]:
        inner = whole.get(name, {})
        if not isinstance(inner, dict):
            raise MessageError(
                f"cannot set `{path}`: `{name}` is no mapping", code="set", path=path
            )
        whole[name] = inner = dict(inner)
        whole = inner
    whole[names[-1]] = value


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

    set: SetConfig

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`."""
        message = visit.message
        changed: dict[str, dict[str, Any]] = {}
        for path, value in self.set.fields(visit.scope).items():
            place, *names = path.split(".")
            whole = changed.get(place)
            if whole is None:
                whole = changed[place] = dict(getattr(message, place))
            _put(whole, names, value, path)
        return [("then", msgspec.structs.replace(message, **changed))]


NODE = Set
