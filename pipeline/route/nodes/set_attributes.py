"""`set_attributes`: a message in, changed attributes in the device's state, the message out."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.model.event import Scope
from pipeline.part import Part
from pipeline.route.fields import TemplateValues
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Attributes(Part):
    """Values of one scope."""

    scope: Scope
    values: TemplateValues = Field(
        description="Names and values, or one expression that gives a mapping."
    )
    overwrite_newer: bool = Field(
        default=False,
        description="Set a value also where it is newer than the message (by its time).",
    )


class SetAttributes(Onward):
    """Sets attributes of the device; those not named stay.

    Later nodes see the new values. Where they differ from the old, a message `attributes_updated`
    enters the chains afterwards. A message that is older than a value (by its time) leaves it,
    unless `overwrite_newer`.

    - name: remember
      set_attributes: {scope: shared, values: {cooling: true, since: "${message.time}"}}
    """

    verb: ClassVar[str] = "set_attributes"

    set_attributes: Attributes

    def apply(self, visit: Visit) -> Outcome:
        """Change the state; return `then`. MessageError (code `attributes`): no mapping."""
        wanted = self.set_attributes
        values = wanted.values(visit.scope)
        if not isinstance(values, dict):
            raise MessageError("the expression of `values` gives no mapping", code="attributes")
        visit.change_attributes(wanted.scope, values, overwrite_newer=wanted.overwrite_newer)
        return "then"


NODE = SetAttributes
