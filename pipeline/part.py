"""What every mapping in a file of `rules/` has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping in a file: frozen, no keys but its own, and no values in its errors, which may be
    secrets.

    Its validator is built when one is first read: a folder uses few of all that there are.
    Expressions are fields too: they are compiled as they are read.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=True,
        arbitrary_types_allowed=True,
    )
