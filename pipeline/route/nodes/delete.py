"""`delete`: a message in, a new message without some values out by `then`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, Place
from pipeline.route.visit import Visit


class Delete(Onward):
    """Takes values out of the message; those that are not there are passed over.

    The device's attributes stay; for those, see `delete_attributes`.

    - name: no secrets
      delete: [telemetry.battery, metadata.rssi]
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "delete"
    acts: ClassVar[bool] = False

    delete: tuple[Place, ...] = Field(min_length=1, max_length=256)

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`; the same one where it has none of the values."""
        draft = Draft(visit.message)
        for place in self.delete:
            draft.remove(place)
        return [("then", draft.message())]


NODE = Delete
