"""Alarms of a device in its state: a part a type, `alarms/<type>`.

In: what nodes decide. Out: the alarm as it is kept, and as messages show it. One that is cleared
stays, so that it can still be acknowledged, until its room is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator

from pipeline.errors import MessageError
from pipeline.expression import Value
from pipeline.part import Part
from pipeline.ports import DeviceState
from pipeline.route.fields import FieldFault, TemplateText
from pipeline.route.message import time_text
from pipeline.route.storable import size_of

PART_PREFIX = "alarms/"
SEVERITIES = ("critical", "major", "minor", "warning", "indeterminate")
_TYPE_LENGTH_MAX = 64

Event = Literal["created", "updated", "severity_changed", "acknowledged", "cleared"]


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True):
    """An alarm of one type. Times are epoch milliseconds, of the messages that caused them."""

    severity: str
    since_ms: int
    last_ms: int
    count: int = 1
    acknowledged_ms: int | None = None
    cleared_ms: int | None = None
    details: Any = None

    @property
    def active(self) -> bool:
        """Whether it is not cleared."""
        return self.cleared_ms is None


def find(state: DeviceState, key: str, kind: str) -> Alarm | None:
    """Return a device's alarm of a type, cleared or not; None: there is none."""
    part = state.get(key, PART_PREFIX + kind)
    return None if part is None else msgspec.convert(part, Alarm)


def keep(
    state: DeviceState, key: str, kind: str, alarm: Alarm, *, alarms_max: int, bytes_max: int
) -> None:
    """Write an alarm. Over `alarms_max` types the one cleared first makes room.

    MessageError: all of them are active (code `alarms`), or it is too large (`alarm_size`).
    """
    part = msgspec.to_builtins(alarm)
    if (size := size_of(part)) > bytes_max:
        raise MessageError(f"the alarm takes {size} bytes", code="alarm_size", limit=bytes_max)
    if state.get(key, PART_PREFIX + kind) is None:
        there = list(state.scan(key, PART_PREFIX))
        if len(there) >= alarms_max:
            cleared = [
                (value["cleared_ms"], name) for name, value in there if "cleared_ms" in value
            ]
            if not cleared:
                raise MessageError(
                    f"the device has {len(there)} active alarms already",
                    code="alarms",
                    limit=alarms_max,
                )
            state.delete(key, min(cleared)[1])
    state.put(key, PART_PREFIX + kind, part)


def shown(kind: str, alarm: Alarm, event: Event) -> dict[str, Any]:
    """Return an alarm as messages carry it, in `metadata.alarm`."""
    told = {
        "type": kind,
        "event": event,
        "severity": alarm.severity,
        "active": alarm.active,
        "acknowledged": alarm.acknowledged_ms is not None,
        "since": time_text(alarm.since_ms),
        "last": time_text(alarm.last_ms),
        "count": alarm.count,
    }
    if alarm.cleared_ms is not None:
        told["cleared"] = time_text(alarm.cleared_ms)
    if alarm.details is not None:
        told["details"] = alarm.details
    return told


def type_of(value: Any) -> str:
    """Return what an expression gave as an alarm's type. MessageError: it is none."""
    if (
        not isinstance(value, str)
        or not value.strip()
        or len(value) > _TYPE_LENGTH_MAX
        or "/" in value
        or not value.isprintable()
    ):
        raise MessageError(
            f"an alarm's type must be text of 1 to {_TYPE_LENGTH_MAX} characters without `/`",
            code="alarm_type",
        )
    return value


def severity_of(value: Any) -> str:
    """Return what an expression gave as a severity. MessageError: it is none."""
    if value not in SEVERITIES:
        raise MessageError(
            f"an alarm's severity must be one of {', '.join(SEVERITIES)}", code="alarm_severity"
        )
    return str(value)


def _constant(check: Callable[[Any], str]) -> AfterValidator:
    """Return the check of a template that holds no expression, while it is read."""

    def checked(value: Value) -> Value:
        if value.constant:
            try:
                check(value({}))
            except MessageError as error:
                raise FieldFault(error.message) from error
        return value

    return AfterValidator(checked)


AlarmType = Annotated[TemplateText, _constant(type_of)]
Severity = Annotated[TemplateText, _constant(severity_of)]


class AlarmName(Part):
    """Which alarm is meant."""

    type: AlarmType
