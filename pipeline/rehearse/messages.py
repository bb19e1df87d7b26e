"""A file of messages → steps that a rehearsal can do, or events of devices.

JSON: one value, a list, or a value a line. Each is a step of a chain test's `when`
(`{"uplink": {…}}`, `{"attributes": {…}}`, `{"wait": "1h"}`, …), a message alone (`{"device": …,
"telemetry": {…}}`, as `message` of a step), or an event as `device.events` has it (with `kind`).
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from pipeline.errors import UsageError
from pipeline.model.event import DeviceEvent
from pipeline.rehearse.chain_test_config import STEPS, StepConfig
from pipeline.rehearse.result import path_text
from pipeline.rulebook.validation import validate

MESSAGES_MAX = 1_000_000
"""In one file."""

Entry = StepConfig | DeviceEvent


def read_messages(text: bytes, name: str) -> list[Entry]:
    """Return what the file holds. UsageError: what is wrong, and with which entry."""
    entries = _values(text, name)
    if len(entries) > MESSAGES_MAX:
        raise UsageError(f"{name} has {len(entries):,} messages; at most {MESSAGES_MAX:,} are read")
    return [_entry(value, f"{name}, message {at}") for at, value in enumerate(entries, 1)]


def _values(text: bytes, name: str) -> list[Any]:
    if not text.strip():
        raise UsageError(f"{name} holds no message")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        lines = text.splitlines()
        if len(lines) < 2:
            raise UsageError(f"{name} is not JSON: {error}") from None
    else:
        return value if isinstance(value, list) else [value]
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise UsageError(
                    f"{name}:{number} is not JSON: {error}; give one value, a list, or a value a"
                    " line"
                ) from None
    return found


def _entry(value: Any, where: str) -> Entry:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is no JSON object")
    if "kind" in value:
        try:
            event: DeviceEvent = msgspec.convert(value, DeviceEvent)
        except msgspec.ValidationError as error:
            raise UsageError(f"{where} is no event of a device: {error}") from None
        return event
    step = value if value.keys() & set(STEPS) else {"message": value}
    config, problems = validate(StepConfig, step)
    if config is None:
        first = problems[0]
        place = path_text(tuple(first.path))
        said = f"{place}: {first.message}" if place else first.message
        raise UsageError(f"{where}: {said}")
    return config
