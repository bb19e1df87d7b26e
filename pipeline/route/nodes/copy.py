"""`copy`: a message in, a new message with values at further places out by `then`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Draft, PlacePairs, look
from pipeline.route.visit import Visit


class Copy(Onward):
    """Copies values of the message to further places: `from: to`.

    A value that is not there is passed over; one that stands at the new place already is replaced.

    - name: beside the data
      copy: {telemetry.battery: metadata.battery}
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "copy"
    acts: ClassVar[bool] = False

    # The field cannot be called as the verb: pydantic's models have a method `copy`.
    pairs: PlacePairs = Field(alias="copy", description="The further place of each.")

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`; the same one where it has none of the values."""
        message = visit.message
        draft = Draft(message)
        for source, target in self.pairs.items():
            value = look(message, source)
            if value is not MISSING:
                draft.put(target, value)
        return [("then", draft.message())]


NODE = Copy
