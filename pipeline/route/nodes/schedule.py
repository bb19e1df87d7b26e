"""`schedule`: a device's last message in, again and again out by `then`, when it is time."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from pipeline.part import Part
from pipeline.route.cron import parse_cron
from pipeline.route.fields import Target
from pipeline.route.memory import recall, remember
from pipeline.route.message import time_text
from pipeline.route.moments import Span
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, path_of
from pipeline.route.visit import Visit

_TIMER = "due"
_SCHEDULE = path_of("metadata.schedule")


def _cron(text: str) -> str:
    parse_cron(text)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError("must be a time zone like `Europe/Amsterdam`") from error
    return name


class Times(Part):
    """When: by the clock (`cron`), or so long after one another (`every`)."""

    every: Span | None = None
    cron: Annotated[str, AfterValidator(_cron)] | None = Field(
        default=None, description="Minute, hour, day of the month, month, day of the week."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Where the clock of `cron` hangs."
    )
    spread: Span | None = Field(
        default=None,
        description="Devices come up to so much later, each by the same time, not all at once.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> Times:
        if (self.every is None) == (self.cron is None):
            raise ValueError("needs either `every` (a duration) or `cron`")
        return self

    @cached_property
    def shape(self) -> str:
        """What tells a timer of this config from another's."""
        return f" {self.every} {self.cron} {self.timezone} {self.spread}"

    def next_after(self, now_ms: int, device: str) -> int:
        """Return when it is time next for a device."""
        later_ms = 0
        if self.spread is not None:
            digest = blake2b(device.encode(), digest_size=8).digest()
            later_ms = int.from_bytes(digest) % self.spread
        if self.cron is None:
            # From the start of all time on, so that a restart moves nothing.
            every = self.every or 1
            return ((now_ms - later_ms) // every + 1) * every + later_ms
        due_ms = parse_cron(self.cron).next_after(now_ms - later_ms, ZoneInfo(self.timezone))
        assert due_ms is not None, "checked when it was read"
        return due_ms + later_ms


class Schedule(Onward):
    """Sends a device's last message on again when it is time.

    That is by a cron expression, or every so long (at full multiples of it in UTC). It begins with
    the device's first message; each message leaves by `otherwise` when it comes. What goes on by
    `then` is the last message, with the time of the schedule as its own and `metadata.schedule`
    (`due`). What was due while nothing ran comes once, late. A device that has never spoken is not
    known here.

    - name: every morning
      schedule: {cron: "0 6 * * mon-fri", timezone: Europe/Amsterdam, spread: 10m}
      otherwise: stop
    - name: ask for a report
      send_downlink: {f_port: 3, bytes: "hex:01"}
    """

    verb: ClassVar[str] = "schedule"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    schedule: Times
    otherwise: Target | None = Field(default=None, description="Each message when it comes.")

    def apply(self, visit: Visit) -> Outcome:
        """Keep the message for the next time; return `otherwise`."""
        due_ms = recall(visit, self.verb, self.schedule.shape).get("due_ms", 0)
        if due_ms <= visit.now_ms:
            due_ms = self.schedule.next_after(visit.now_ms, visit.device())
        self._wait(visit, due_ms)
        return "otherwise"

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the last message by `then`, and wait for the next time."""
        kept = recall(visit, self.verb, self.schedule.shape)
        if not kept:
            # The schedule is another now: it begins with the message that waited.
            self._wait(visit, self.schedule.next_after(visit.now_ms, visit.device()))
            return []
        due_ms = kept["due_ms"]
        self._wait(visit, self.schedule.next_after(max(visit.now_ms, due_ms), visit.device()))
        draft = Draft(visit.successor(str(due_ms), time_ms=due_ms, received_ms=visit.now_ms))
        draft.put(_SCHEDULE, {"due": time_text(due_ms)})
        return [("then", draft.message())]

    def _wait(self, visit: Visit, due_ms: int) -> None:
        visit.wake(_TIMER, due_ms)
        remember(visit, self.verb, {"due_ms": due_ms}, self.schedule.shape)


NODE = Schedule
