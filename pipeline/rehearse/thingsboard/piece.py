"""What becomes of one node of ThingsBoard: some of our nodes, and where its relations leave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SUCCESS = "Success"
THEN: Mapping[str, tuple[str, ...]] = {SUCCESS: ("then",)}
EITHER: Mapping[str, tuple[str, ...]] = {"True": ("then",), "False": ("otherwise",)}
_NAME_LENGTH_MAX = 60


@dataclass(slots=True)
class Piece:
    """Our nodes, in order, without names and outlets; none: messages just go on.

    `ways`: by relation, where the target's name stands in the last node. `notes`: what was lost.
    """

    nodes: list[dict[str, Any]] = field(default_factory=list)
    ways: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: THEN)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Needed:
    """What the chains need beside them: `sinks` by name, and what scripts expect in the metadata.

    `chains`: names of our chains by what ThingsBoard's are called.
    """

    chains: Mapping[str, str]
    sinks: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    metadata: set[str] = field(default_factory=set)

    def sink(self, name: str, about: str, config: dict[str, Any]) -> str:
        """Return the name of a sink of this config; there is one for all that have the same."""
        wanted = slug(name)
        number = 1
        while (found := self.sinks.get(wanted)) is not None and found[1] != config:
            number += 1
            wanted = f"{slug(name)[:_NAME_LENGTH_MAX]}-{number}"
        self.sinks.setdefault(wanted, (about, config))
        return wanted


def slug(text: str) -> str:
    """Return a name for a file of what a person called something."""
    made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_NAME_LENGTH_MAX].strip("-")
    return made or "imported"


def lost(what: str) -> Piece:
    """Return the piece of a node that has nothing here that does the same."""
    return Piece(notes=[f"{what}; messages go on without it"])
