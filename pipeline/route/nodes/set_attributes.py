"""`set_attributes`: a message in, changed attributes in the device's state, the message out."""

from __future__ import annotations

from typing import ClassVar

from pipeline.model.event import Scope
from pipeline.route.fields import Part, TemplateMap
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Attributes(Part):
    """Values of one scope."""

    scope: Scope
    values: TemplateMap


class SetAttributes(Onward):
    """Sets attributes of the device; those not named stay.

    Later nodes see the new values. Where they differ from the old, a message `attributes_updated`
    enters the chains afterwards. A message that is older than a value (by its time) leaves it.

    - name: remember
      set_attributes: {scope: shared, values: {cooling: true, since: "${message.time}"}}
    """

    verb: ClassVar[str] = "set_attributes"

    set_attributes: Attributes

    def apply(self, visit: Visit) -> Outcome:
        """Change the state; return `then`."""
        wanted = self.set_attributes
        visit.change_attributes(wanted.scope, wanted.values(visit.scope))
        return "then"


NODE = SetAttributes
