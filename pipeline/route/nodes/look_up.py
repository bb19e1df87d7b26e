"""`look_up`: a message in, a new message with a table's entry for it out by `then`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.route.fields import Target, TemplateText
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, Place
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import Known, Problem, suggest

ENTRIES_MAX = 50_000


Entries = Annotated[
    dict[str, Any],
    Field(min_length=1, max_length=ENTRIES_MAX),
    WithJsonSchema({"anyOf": [{"type": "object", "minProperties": 1}, {"type": "string"}]}),
]


class Table(Part):
    """Entries by key, and where the one that was found goes."""

    key: TemplateText = Field(description="The entry's key.")
    into: Place = Field(description="Where the entry goes.")
    table: Entries = Field(
        description="The entries, or the name of a file in `tables/`: `.csv` (the first column is "
        "the key) or `.yaml`."
    )


class LookUp(Onward):
    """Adds to the message what a table says: an entry by its key, a text with expressions.

    Without an entry the message leaves by `otherwise`. An entry is any value. The table stands
    here, or, as `table: sites`, in `tables/sites.csv` or `tables/sites.yaml`. Keys that look like
    numbers are written in quotes in YAML.

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

    @classmethod
    def filled(
        cls, item: Mapping[str, Any], known: Known
    ) -> tuple[Mapping[str, Any], Sequence[Problem]]:
        """Put the entries of a file in the place of its name."""
        wanted = item.get("look_up")
        if not isinstance(wanted, dict) or not isinstance(wanted.get("table"), str):
            return item, ()
        name = wanted["table"]
        if name not in known.tables:
            hint = suggest(name, known.tables) or f"write tables/{name}.csv"
            return item, [Problem(("look_up", "table"), f"there is no table `{name}`", hint, 0)]
        return {**item, "look_up": {**wanted, "table": known.tables[name] or {"": None}}}, ()

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
