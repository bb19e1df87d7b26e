"""`split`: a message with a list in, a message for each of its items out by `then`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage
from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING, Draft, Place, look
from pipeline.route.visit import Visit

ITEMS_MAX = 500  # each goes through the rest of the chain, which may take 1,000 steps in all
_TIME_MS_MAX = 253_402_300_799_999  # the end of the year 9999


class SplitConfig(Part):
    """Which list, and where its items go."""

    list: Place
    into: Place | None = Field(
        default=None,
        description="Where an item stands in its message; without it, the item, a mapping, is "
        "its message's telemetry.",
    )
    time: str | None = Field(
        default=None,
        min_length=1,
        description="The item's key with its time: epoch milliseconds, or RFC 3339 text.",
    )
    items_max: int = Field(default=100, ge=1, le=ITEMS_MAX)


class Split(Onward):
    """Makes a message of each item of a list, in order; all else stays as it came.

    A message without the list leaves by `otherwise`. Of a list over `items_max` the node fails.

    - name: each reading
      split: {list: telemetry.readings, time: at, items_max: 50}
      otherwise: archive
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "split"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    split: SplitConfig
    otherwise: Target | None = Field(default=None, description="Where there is no such list.")

    def apply(self, visit: Visit) -> Outcome:
        """Return the messages by `then`. MessageError (code `split`): it is no list, too long, or
        has an item that cannot be a message.
        """
        items = look(visit.message, self.split.list)
        if items is MISSING or items is None:
            return "otherwise"
        if not isinstance(items, list):
            raise MessageError(f"`{self.split.list}` is no list", code="split")
        if len(items) > self.split.items_max:
            raise MessageError(
                f"`{self.split.list}` has {len(items)} items",
                code="split",
                limit=self.split.items_max,
            )
        return list(self._messages(visit, items))

    def _messages(self, visit: Visit, items: list[Any]) -> Iterator[tuple[str, DeviceMessage]]:
        config = self.split
        draft = Draft(visit.message)
        draft.remove(config.list)
        rest = draft.message()
        for number, item in enumerate(items):
            changes: dict[str, Any] = {}
            if config.time is not None:
                changes["time_ms"] = _time_of(item, config.time, number)
            if config.into is not None:
                one = Draft(rest)
                one.put(config.into, item)
                made = one.message()
                changes |= {"telemetry": made.telemetry, "metadata": made.metadata}
            elif isinstance(item, dict):
                own = {key: value for key, value in item.items() if key != config.time}
                changes |= {"telemetry": own, "metadata": rest.metadata}
            else:
                raise MessageError(
                    f"item {number} of `{config.list}` is no mapping; say where it goes (`into`)",
                    code="split",
                )
            yield "then", visit.successor(str(number), **changes)


def _time_of(item: Any, key: str, number: int) -> int:
    value = item.get(key) if isinstance(item, dict) else None
    if type(value) is int and 0 <= value <= _TIME_MS_MAX:
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return round(moment.timestamp() * 1_000)
    raise MessageError(
        f"`{key}` of item {number} must be epoch milliseconds or RFC 3339 text with its zone",
        code="split_time",
    )


NODE = Split
