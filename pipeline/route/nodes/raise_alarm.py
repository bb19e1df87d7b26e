"""`raise_alarm`: a message in, an alarm in the device's state, a new message out that shows it."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from pydantic import Field

from pipeline.route.alarms import (
    Alarm,
    AlarmName,
    Event,
    Severity,
    severity_of,
    shown,
    type_of,
)
from pipeline.route.fields import Target, Template
from pipeline.route.moments import as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, path_of
from pipeline.route.visit import Visit

_ALARM = path_of("metadata.alarm")


class Raised(AlarmName):
    """Which alarm, how bad, and what there is to say about it."""

    severity: Severity = Field(
        description="`critical`, `major`, `minor`, `warning` or `indeterminate`."
    )
    details: Template | None = Field(
        default=None, description="Anything; replaces what was said before."
    )


class RaiseAlarm(Onward):
    """Raises an alarm of the device, or says that it goes on.

    The alarm stands in `metadata.alarm` of the message that goes on: `type`, `event`, `severity`,
    `active`, `acknowledged`, `since`, `last`, `count`, `details`. It leaves by its event: `created`
    (there was no active alarm of this type), `severity_changed`, `updated` (neither); an event
    whose outlet is not named leaves by `then`. A message that is older than the last alarm's end
    raises nothing and leaves by `otherwise`.

    - name: overheated
      raise_alarm:
        type: overheated
        severity: "${telemetry.temperature > 35.0 ? 'critical' : 'warning'}"
        details: {temperature: "${telemetry.temperature}"}
      updated: stop
    - name: tell the application
      send: {to: application, body: "${metadata.alarm}"}
    """

    verb: ClassVar[str] = "raise_alarm"
    outlets: ClassVar[tuple[str, ...]] = (
        "then",
        "otherwise",
        "created",
        "updated",
        "severity_changed",
    )

    raise_alarm: Raised
    otherwise: Target | None = Field(default=None, description="Messages that come too late.")
    created: Target | None = Field(default=None, description="The alarm is new.")
    updated: Target | None = Field(default=None, description="The alarm goes on.")
    severity_changed: Target | None = Field(default=None, description="Its severity is another.")

    def apply(self, visit: Visit) -> Outcome:
        """Change the alarm; return a new message. MessageError: its type or severity is none, or
        the device has too many alarms.
        """
        wanted, scope, message = self.raise_alarm, visit.scope, visit.message
        kind, severity = type_of(wanted.type(scope)), severity_of(wanted.severity(scope))
        details = None if wanted.details is None else wanted.details(scope)
        time_ms = as_of(visit)
        before = visit.alarm(kind)
        event: Event
        if before is None or before.cleared_ms is not None:
            if before is not None and before.cleared_ms is not None and time_ms < before.cleared_ms:
                return "otherwise"
            alarm = Alarm(severity, time_ms, time_ms, details=details)
            event = "created"
        else:
            alarm = msgspec.structs.replace(
                before,
                severity=severity if time_ms >= before.last_ms else before.severity,
                last_ms=max(before.last_ms, time_ms),
                since_ms=min(before.since_ms, time_ms),
                count=before.count + 1,
                details=before.details if details is None else details,
            )
            event = "updated" if alarm.severity == before.severity else "severity_changed"
        visit.keep_alarm(kind, alarm)
        draft = Draft(message)
        draft.put(_ALARM, shown(kind, alarm, event))
        return [(event if getattr(self, event) else "then", draft.message())]


NODE = RaiseAlarm
