"""`rename`: a message in, a new message with values at other places out by `then`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Draft, PlacePairs, look
from pipeline.route.visit import Visit


class Rename(Onward):
    """Moves values of the message to other places: `from: to`.

    A value that is not there is passed over; one that stands at the new place already is replaced.
    All values are taken first, so that two may change places.

    - name: in our words
      rename: {telemetry.temperature: telemetry.celsius, telemetry.battery: metadata.battery}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "rename"
    acts: ClassVar[bool] = False

    rename: PlacePairs = Field(description="The new place of each.")

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`; the same one where it has none of the values."""
        message = visit.message
        draft = Draft(message)
        moved = []
        for source, target in self.rename.items():
            value = look(message, source)
            if value is not MISSING:
                draft.remove(source)
                moved.append((target, value))
        for target, value in moved:
            draft.put(target, value)
        return [("then", draft.message())]


NODE = Rename
