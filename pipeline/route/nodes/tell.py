"""`tell`: a message in, a message for each of some other devices on `device.events`, and it out."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from pipeline.part import Part
from pipeline.route.fields import Target, Template, TemplateMap
from pipeline.route.message import TOLD
from pipeline.route.node import THEN, Onward, Outcome
from pipeline.route.nodes.relate import RelationName
from pipeline.route.relations import Way, names_of
from pipeline.route.visit import Visit


class TellConfig(Part):
    """Whom, and what; exactly one of `to` and `related`."""

    to: Template | None = Field(default=None, description="A device, or a list of devices.")
    related: RelationName | None = Field(
        default=None, description="All devices of this relation (see `relate`)."
    )
    way: Way = Field(
        default="to", description="Of `related`: devices that this one relates `to`, or `from`."
    )
    what: str = Field(
        default="", max_length=64, description="A word by which the others know what it is about."
    )
    telemetry: TemplateMap | None = Field(
        default=None, description="What they are told; this message's telemetry by default."
    )
    device_type: str = Field(
        default="",
        max_length=128,
        description="The type of a device that was never heard, which makes it known.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> TellConfig:
        if (self.to is None) == (self.related is None):
            raise ValueError("needs either `to` (devices) or `related` (a relation)")
        return self


class Tell(Onward):
    """Tells other devices something: a gateway its meters, a window its room.

    Each gets a message of type `told`, once and in order, that enters the chains that take such
    messages of its type, with its own attributes and state. `metadata.told` there says `by` whom,
    `what`, and of which `type` the first message was. A device that was never heard is a mistake,
    whose message becomes a dead letter, unless `device_type` is given. What is told may be told on
    4 times; one message tells at most 100 devices. With nobody to tell the message leaves by
    `otherwise`, if that is named.

    - name: the room's thermostats
      tell:
        related: contains
        what: window
        telemetry: {open: "${telemetry.battery < 20}"}
      otherwise: archive
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "tell"
    outlets: ClassVar[tuple[str, ...]] = (THEN, "otherwise")

    tell: TellConfig
    otherwise: Target | None = Field(default=None, description="Where there is nobody to tell.")

    def apply(self, visit: Visit) -> Outcome:
        """Tell them; return `then` or `otherwise`. MessageError (codes `hops`, `told`): over a
        limit; nobody is told then.
        """
        config = self.tell
        if config.to is None:
            names = visit.related(config.related or "", config.way)
        else:
            names = names_of(config.to(visit.scope))
        if not names:
            return "otherwise" if self.otherwise else THEN
        message = visit.message
        telemetry: dict[str, Any] = message.telemetry
        if config.telemetry is not None:
            telemetry = config.telemetry(visit.scope)
        _, _, device = visit.device().partition("/")
        told = {"by": device, "what": config.what, "type": message.type}
        for name in names:
            visit.tell(
                name,
                type=TOLD,
                telemetry=telemetry,
                metadata={"told": told},
                device_type=config.device_type,
                device_kind="device",
                attributes={},
                changed=(),
                previous={},
                payload=None,
                f_port=None,
                f_cnt=None,
                confirmed=False,
                warnings=(),
            )
        return THEN


NODE = Tell
