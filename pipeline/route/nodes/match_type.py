"""`match_type`: a message in, the same message out to the node that its type names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

from pydantic import Field, field_validator

from pipeline.model.uplink import MessageType
from pipeline.route.fields import FieldFault, Target
from pipeline.route.message import ATTRIBUTES_UPDATED, TOLD
from pipeline.route.node import Link, Node, Outcome
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import suggest

_TYPES = (*get_args(MessageType), ATTRIBUTES_UPDATED, TOLD)


class MatchType(Node):
    """Sends the message on by its type.

    Types are `uplink`, `join`, `location`, `service_data`, `status`, `attributes_updated`,
    `told` (by another device).
    One that is not named leaves by `otherwise`. For the type of the device, use `switch` with
    `device.type == "…"`. Outlets are called as the nodes that they lead to.

    - name: kind
      match_type: {uplink: archive, join: note}
      otherwise: stop
    - name: archive
      send: {to: archive}
      then: stop
    - name: note
      log: {message: "${device.name} has joined"}
    """

    verb: ClassVar[str] = "match_type"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("otherwise",)

    match_type: dict[str, Target] = Field(min_length=1, description="Nodes by type of message.")
    otherwise: Target | None = Field(default=None, description="Where the type is not named.")

    @field_validator("match_type", mode="before")
    @classmethod
    def _types(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name not in _TYPES:
                raise FieldFault(
                    f"there are no messages `{name}`",
                    path=(name,),
                    suggestion=suggest(str(name), _TYPES) or f"one of {', '.join(_TYPES)}",
                )
        return value

    def apply(self, visit: Visit) -> Outcome:
        """Return the type's target, or `otherwise`."""
        return self.match_type.get(visit.message.type, "otherwise")

    def links(self) -> Iterator[Link]:
        """Yield a link a type, called as its target."""
        for name, target in self.match_type.items():
            yield Link(target, target, ("match_type", name))
        yield from super().links()


NODE = MatchType
