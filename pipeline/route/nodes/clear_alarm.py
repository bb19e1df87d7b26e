"""`clear_alarm`: a message in, the end of an alarm, a new message out that shows it."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from pydantic import Field

from pipeline.route.alarms import AlarmName, shown, type_of
from pipeline.route.fields import Target, Template
from pipeline.route.moments import as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, path_of
from pipeline.route.visit import Visit

_ALARM = path_of("metadata.alarm")


class Cleared(AlarmName):
    """Which alarm, and what there is to say about its end."""

    details: Template | None = Field(
        default=None, description="Anything; replaces what was said before."
    )


class ClearAlarm(Onward):
    """Ends an active alarm of the device; it goes on by `then`, with the alarm in `metadata.alarm`.

    Where no such alarm is active, or it was raised later than this message, the message
    leaves by `otherwise` as it came. A cleared alarm can still be acknowledged.

    - name: cool again
      clear_alarm: {type: overheated}
      otherwise: stop
    - name: tell the application
      send: {to: application, body: "${metadata.alarm}"}
    """

    verb: ClassVar[str] = "clear_alarm"
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    clear_alarm: Cleared
    otherwise: Target | None = Field(default=None, description="Where no such alarm is active.")

    def apply(self, visit: Visit) -> Outcome:
        """Change the alarm; return a new message by `then`, or `otherwise`."""
        wanted, scope, message = self.clear_alarm, visit.scope, visit.message
        kind = type_of(wanted.type(scope))
        before = visit.alarm(kind)
        time_ms = as_of(visit)
        if before is None or not before.active or time_ms < before.last_ms:
            return "otherwise"
        details = before.details if wanted.details is None else wanted.details(scope)
        alarm = msgspec.structs.replace(before, cleared_ms=time_ms, details=details)
        visit.keep_alarm(kind, alarm)
        draft = Draft(message)
        draft.put(_ALARM, shown(kind, alarm, "cleared"))
        return [("then", draft.message())]


NODE = ClearAlarm
