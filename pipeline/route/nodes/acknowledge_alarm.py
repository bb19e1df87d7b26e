"""`acknowledge_alarm`: a message in, an alarm that somebody has seen, a new message out."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from pydantic import Field

from pipeline.route.alarms import AlarmName, shown, type_of
from pipeline.route.fields import Target
from pipeline.route.moments import as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, path_of
from pipeline.route.visit import Visit

_ALARM = path_of("metadata.alarm")


class AcknowledgeAlarm(Onward):
    """Notes that somebody has seen an alarm of the device, active or cleared.

    The message goes on by `then`, with the alarm in `metadata.alarm`; where there is no such alarm,
    or it is acknowledged already, it leaves by `otherwise` as it came. An application acknowledges
    by an attribute: let a chain `on: {messages: attributes_updated}` lead here. An alarm that is
    raised anew is not acknowledged.

    - name: seen
      acknowledge_alarm: {type: overheated}
      otherwise: stop
    - name: tell the application
      send: {to: application, body: "${metadata.alarm}"}
    """

    verb: ClassVar[str] = "acknowledge_alarm"
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    acknowledge_alarm: AlarmName
    otherwise: Target | None = Field(default=None, description="Where there is nothing to see.")

    def apply(self, visit: Visit) -> Outcome:
        """Change the alarm; return a new message by `then`, or `otherwise`."""
        kind = type_of(self.acknowledge_alarm.type(visit.scope))
        before = visit.alarm(kind)
        if before is None or before.acknowledged_ms is not None:
            return "otherwise"
        alarm = msgspec.structs.replace(before, acknowledged_ms=as_of(visit))
        visit.keep_alarm(kind, alarm)
        draft = Draft(visit.message)
        draft.put(_ALARM, shown(kind, alarm, "acknowledged"))
        return [("then", draft.message())]


NODE = AcknowledgeAlarm
