"""`match_alarm`: a message in, the same message out by `then` where the device has an alarm."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, StrictBool

from pipeline.route.alarms import AlarmName, type_of
from pipeline.route.fields import Target
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit


class Wanted(AlarmName):
    """Which alarm, and in which state; what is left out does not matter, but it must be there."""

    active: StrictBool | None = True
    acknowledged: StrictBool | None = None
    severity: tuple[Literal["critical", "major", "minor", "warning", "indeterminate"], ...] = ()


class MatchAlarm(Onward):
    """Goes on where the device has an alarm of this type and state; else by `otherwise`.

    Only active alarms by default; `active: false` means cleared ones.

    - name: nobody has looked
      match_alarm: {type: overheated, acknowledged: false, severity: [critical, major]}
      otherwise: stop
    - name: insist
      log: {level: error, message: "${device.name} is still too hot"}
    """

    verb: ClassVar[str] = "match_alarm"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    match_alarm: Wanted
    otherwise: Target | None = Field(default=None, description="Where there is no such alarm.")

    def apply(self, visit: Visit) -> Outcome:
        """Return `then` or `otherwise`."""
        wanted = self.match_alarm
        alarm = visit.alarm(type_of(wanted.type(visit.scope)))
        fits = (
            alarm is not None
            and wanted.active in (None, alarm.active)
            and wanted.acknowledged in (None, alarm.acknowledged_ms is not None)
            and (not wanted.severity or alarm.severity in wanted.severity)
        )
        return "then" if fits else "otherwise"


NODE = MatchAlarm
