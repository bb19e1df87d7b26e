"""`unrelate`: a message in, relations of its device to others forgotten, the message out."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.part import Part
from pipeline.route.fields import Template
from pipeline.route.node import Onward, Outcome
from pipeline.route.nodes.relate import RelationName
from pipeline.route.relations import Way, names_of
from pipeline.route.visit import Visit


class OldRelationConfig(Part):
    """Which relation; of all devices, or of some."""

    relation: RelationName
    way: Way = Field(
        default="to", description="Relations of this device `to` others, or `from` others to it."
    )
    others: Template | None = Field(
        default=None, description="A device, or a list; without it, all of this relation."
    )


class Unrelate(Onward):
    """Forgets that the message's device relates to others; they forget it too.

    - name: has left
      unrelate: {relation: serves, way: from}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "unrelate"

    unrelate: OldRelationConfig

    def apply(self, visit: Visit) -> Outcome:
        """Forget the relations, tell the other devices; return `then`."""
        config = self.unrelate
        if config.others is None:
            names = visit.related(config.relation, config.way)
        else:
            names = names_of(config.others(visit.scope))
        for name in names:
            visit.relate(config.relation, config.way, name, present=False)
        return "then"


NODE = Unrelate
