"""`delete_attributes`: a message in, attributes gone from the device's state, the message out."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.model.event import Scope
from pipeline.part import Part
from pipeline.route.fields import Names
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class AttributeNames(Part):
    """Attributes of one scope."""

    scope: Scope
    names: Names = Field(min_length=1, max_length=256)


class DeleteAttributes(Onward):
    """Deletes attributes of the device; those that are not there are passed over.

    Later nodes no longer see them. Where one was there, a message `attributes_updated` enters the
    chains afterwards. A message that is older than a value (by its time) leaves it.

    - name: forget the target
      delete_attributes: {scope: shared, names: [target, mode]}
    """

    verb: ClassVar[str] = "delete_attributes"

    delete_attributes: AttributeNames

    def apply(self, visit: Visit) -> Outcome:
        """Change the state; return `then`."""
        wanted = self.delete_attributes
        visit.change_attributes(wanted.scope, {}, wanted.names)
        return "then"


NODE = DeleteAttributes
