"""`deduplicate`: a message in, the same message out by `then` unless one like it was there."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar

import orjson
from pydantic import Field

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.route.fields import Target, Template
from pipeline.route.memory import recall, remember
from pipeline.route.moments import Span, arrived
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Duplicates(Part):
    """What makes messages alike, and for how long."""

    by: Template = Field(description="Messages with the same value are alike.")
    within: Span
    keys_max: int = Field(
        default=64,
        ge=1,
        le=1_000,
        description="Values kept a device; over it the oldest is forgotten before its time.",
    )


class Deduplicate(Onward):
    """Lets the first of like messages of a device go on; the others leave by `otherwise`.

    Time is counted from the first, by when messages were received. Repeats that the network server
    makes never come to a chain; this is for what devices say twice.

    - name: once an hour
      deduplicate: {by: ["${telemetry.temperature}", "${telemetry.battery}"], within: 1h}
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "deduplicate"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    deduplicate: Duplicates
    otherwise: Target | None = Field(default=None, description="Where one like it was there.")

    def apply(self, visit: Visit) -> Outcome:
        """Return `then` or `otherwise`."""
        wanted = self.deduplicate
        now_ms = arrived(visit)
        seen: dict[str, int] = recall(visit, self.verb).get("seen", {})
        key = _key(wanted.by(visit.scope))
        if key in seen and now_ms - seen[key] < wanted.within:
            return "otherwise"
        kept = {name: at for name, at in seen.items() if now_ms - at < wanted.within}
        kept[key] = now_ms
        if len(kept) > wanted.keys_max:
            newest = sorted(kept.items(), key=lambda item: item[1])[-wanted.keys_max :]
            kept = dict(newest)
        remember(visit, self.verb, {"seen": kept})
        return "then"


def _key(value: object) -> str:
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise MessageError(f"`by` gives no JSON value: {error}", code="deduplicate") from error
    return blake2b(text, digest_size=8).hexdigest()


NODE = Deduplicate
