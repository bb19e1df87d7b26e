"""`relate`: a message in, relations of its device to others kept, the message out by `then`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.route.fields import Template
from pipeline.route.node import Onward, Outcome
from pipeline.route.relations import Way, names_of
from pipeline.route.visit import Visit

RELATION_LENGTH_MAX = 64
OTHERS_MAX = 100  # devices that one message may relate to


def _relation(value: object) -> object:
    if isinstance(value, str) and ("/" in value or not value.isprintable() or not value.strip()):
        raise ValueError("must be printable text without `/`")
    return value


RelationName = Annotated[
    str, BeforeValidator(_relation), Field(min_length=1, max_length=RELATION_LENGTH_MAX)
]


class RelationConfig(Part):
    """Which devices, and which relation; exactly one of `to` and `from`."""

    relation: RelationName = Field(description="What it is called: `contains`, `measures`.")
    to: Template | None = Field(
        default=None, description="A device, or a list: this device relates to them."
    )
    from_: Template | None = Field(
        default=None, alias="from", description="A device, or a list: they relate to this device."
    )

    @model_validator(mode="after")
    def _one_way(self) -> RelationConfig:
        if (self.to is None) == (self.from_ is None):
            raise ValueError("needs either `to` or `from`: which way the relation goes")
        return self

    @property
    def way(self) -> Way:
        """Which way the relation goes, as this device sees it."""
        return "from" if self.to is None else "to"

    def others(self, visit: Visit) -> list[str]:
        """Return the devices that the expressions name."""
        template = self.from_ if self.to is None else self.to
        assert template is not None, "checked when it was read"
        names = names_of(template(visit.scope))
        if len(names) > OTHERS_MAX:
            raise MessageError(
                f"{len(names)} devices are too many for one message",
                code="relations",
                limit=OTHERS_MAX,
            )
        return names


class NewRelationConfig(RelationConfig):
    """Further, whether others of the same relation end."""

    only: StrictBool = Field(
        default=False, description="The device leaves all others of this relation and way."
    )


class Relate(Onward):
    """Says that the message's device relates to others: a gateway to its meters, say.

    Both devices know of it: here it goes `to`, there `from`. Expressions see it as
    `relations.to.<relation>` and `relations.from.<relation>`, lists of names; `tell` speaks to
    those devices. Relating twice changes nothing. A device has at most 1,000 relations, and one
    that is forgotten leaves all of its own.

    - name: belongs to its gateway
      relate:
        relation: serves
        from: "${has(metadata.gateway) ? metadata.gateway : 'gateway-1'}"
        only: true
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "relate"

    relate: NewRelationConfig

    def apply(self, visit: Visit) -> Outcome:
        """Keep the relations, tell the other devices; return `then`."""
        config = self.relate
        names = config.others(visit)
        if config.only:
            for other in visit.related(config.relation, config.way):
                if other not in names:
                    visit.relate(config.relation, config.way, other, present=False)
        for name in names:
            visit.relate(config.relation, config.way, name, present=True)
        return "then"


NODE = Relate
