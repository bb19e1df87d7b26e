"""`change_device`: a message in, on `device.events` the same one as another device's, which goes on
there by `then`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.route.fields import TemplateText
from pipeline.route.node import THEN, Onward, Outcome
from pipeline.route.relations import names_of
from pipeline.route.visit import Visit


class ChangeConfig(Part):
    """Which device the message is from here on."""

    to: TemplateText = Field(description="The device's name.")
    device_type: str = Field(
        default="",
        max_length=128,
        description="The type of a device that was never heard, which makes it known.",
    )


class ChangeDevice(Onward):
    """Makes the message that of another device, say of the meter behind a gateway.

    The nodes after it work on that device's attributes, memory, alarms and downlinks. It goes on
    there once, in the order in which this device hands over, in this chain only; a chain that ran
    this one goes on without it. `metadata.told.by` says where it came from. A device that
    was never heard is a mistake, whose message becomes a dead letter, unless `device_type` is
    given. A message changes its device 4 times at most.

    - name: the meter behind the gateway
      change_device: {to: "${device.name}-meter", device_type: meter}
    - name: remember
      set_attributes: {scope: server, values: {battery: "${telemetry.battery}"}}
    """

    verb: ClassVar[str] = "change_device"

    change_device: ChangeConfig

    def apply(self, visit: Visit) -> Outcome:
        """Hand the message over, and end its way here; `then` where it is that device's already."""
        config = self.change_device
        names = names_of(config.to(visit.scope) or None)
        if len(names) != 1:
            raise MessageError("the expression names no device", code="device_missing")
        _, _, device = visit.device().partition("/")
        if names[0] == device:
            return THEN
        visit.tell(
            names[0],
            resume=visit.here(),
            device_type=config.device_type,
            metadata={**visit.message.metadata, "told": {"by": device}},
        )
        return []

    def apply_arrival(self, visit: Visit) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return `then`: the message is here."""
        return THEN


NODE = ChangeDevice
