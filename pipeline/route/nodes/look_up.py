"""`look_up`: a message in, a new message with a table's entry for it out by `then`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.route.fields import Part, Target, TemplateText
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, Place
from pipeline.route.visit import Visit

ENTRIES_MAX = 10_000


class Table(Part):
    """Entries by key, and where the one that was found goes."""

    key: TemplateText
    into: Place
    table: dict[str, Any] = Field(min_length=1, max_length=ENTRIES_MAX)


class LookUp(Onward):
    """Adds to the message what a table says: an entry by its key, a text with expressions.

    Without an entry the message leaves by `otherwise`. An entry is any value. Keys that look like
    numbers are written in quotes.

    - name: where it stands
      look_up:
        key: "${device.name}"
        into: metadata.site
        table:
          dev: {building: A, floor: 2}
          other: {building: B, floor: 1}
      otherwise: unknown
    - name: archive
      send: {to: archive}
      then: stop
    - name: unknown
      log: {level: warning, message: "nobody knows where ${device.name} stands"}
    """

    verb: ClassVar[str] = "look_up"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    look_up: Table
    otherwise: Target | None = Field(default=None, description="Where the table has no entry.")

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`, or `otherwise`."""
        wanted = self.look_up
        key = wanted.key(visit.scope)
        if isinstance(key, dict | list | None):
            raise MessageError("the key of a table must be text or a number", code="look_up")
        name = str(key).lower() if isinstance(key, bool) else str(key)
        if name not in wanted.table:
            return "otherwise"
        draft = Draft(visit.message)
        draft.put(wanted.into, wanted.table[name])
        return [("then", draft.message())]


NODE = LookUp
