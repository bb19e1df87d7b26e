"""`enrich`: a message in, a new message with attributes, device fields and last values out."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.model.event import Scope
from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import recall, remember
from pipeline.route.moments import Span, as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Draft, Place, look
from pipeline.route.visit import Visit

NAMES_MAX = 64

DeviceField = Literal[
    "name", "type", "kind", "integration", "dev_eui", "customer", "group", "tenant"
]
ShortNames = tuple[str, ...]


class Enrichment(Part):
    """What is added, and where."""

    into: Place
    attributes: dict[Scope, ShortNames] = Field(
        default={}, description="Names of attributes by scope: `client`, `shared`, `server`."
    )
    device: tuple[DeviceField, ...] = ()
    last: tuple[Place, ...] = Field(
        default=(),
        max_length=NAMES_MAX,
        description="Values of this message, or the last ones that came here.",
    )
    max_age: Span | None = Field(
        default=None, description="How old a last value may be; any age by default."
    )

    @model_validator(mode="after")
    def _something(self) -> Enrichment:
        if not (self.attributes or self.device or self.last):
            raise ValueError("needs `attributes`, `device`, `last`, or some of them")
        if sum(map(len, self.attributes.values())) > NAMES_MAX:
            raise ValueError(f"takes at most {NAMES_MAX} attributes")
        return self


class Enrich(Onward):
    """Adds what is known of the device to the message, under one place.

    Attributes and fields of the device stand there by their names, and so do the last values of
    telemetry that other messages brought. What is not known is left out; where something is, the
    message leaves by `incomplete`, if that is named, else by `then`. `last` knows the
    messages that came to this node, by their time.

    - name: the whole picture
      enrich:
        into: metadata.known
        attributes: {shared: [target], server: [site]}
        device: [type, customer]
        last: [telemetry.humidity]
        max_age: 1d
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "enrich"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "incomplete")

    enrich: Enrichment
    incomplete: Target | None = Field(default=None, description="Where something is not known.")

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then` or `incomplete`."""
        wanted, scope = self.enrich, visit.scope
        known: dict[str, Any] = {}
        complete = True
        for attribute_scope, names in wanted.attributes.items():
            values = scope["attributes"][attribute_scope]
            known |= {name: values[name] for name in names if name in values}
            complete = complete and all(name in values for name in names)
        for field in wanted.device:
            if value := scope["device"][field]:
                known[field] = value
            else:
                complete = False
        last = self._last(visit)
        known |= {place.names[-1]: last[str(place)] for place in wanted.last if str(place) in last}
        complete = complete and len(last) == len(set(wanted.last))
        draft = Draft(visit.message)
        there = look(visit.message, wanted.into)
        draft.put(wanted.into, {**there, **known} if isinstance(there, dict) else known)
        return [("then" if complete or not self.incomplete else "incomplete", draft.message())]

    def _last(self, visit: Visit) -> dict[str, Any]:
        wanted, message = self.enrich, visit.message
        if not wanted.last:
            return {}
        time_ms = as_of(visit)
        kept: dict[str, Any] = dict(recall(visit, self.verb).get("last", {}))
        for place in wanted.last:
            value = look(message, place)
            held = kept.get(str(place))
            if value is not MISSING and (held is None or held[0] <= time_ms):
                kept[str(place)] = [time_ms, value]
        names = {str(place) for place in wanted.last}
        kept = {name: held for name, held in kept.items() if name in names}
        remember(visit, self.verb, {"last": kept})
        return {
            name: value
            for name, (at_ms, value) in kept.items()
            if wanted.max_age is None or time_ms - at_ms <= wanted.max_age
        }


NODE = Enrich
