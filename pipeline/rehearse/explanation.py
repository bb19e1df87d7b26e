"""What `funicular explain` says of one message, as a value: what was told on its way, what came of
it, what it began with, and which chains did not take it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.model.event import DeviceEvent, DeviceMessage
from pipeline.model.record import Outgoing
from pipeline.rehearse.effects import Effects, effects_of
from pipeline.rehearse.recorded import State
from pipeline.rehearse.trace import ChainRun, Told, Trace
from pipeline.route.alarms import PART_PREFIX as ALARMS
from pipeline.route.attributes import PART_PREFIX as ATTRIBUTES
from pipeline.route.chain import On
from pipeline.route.turn import DEVICE_PART, TELEMETRY_PART
from pipeline.rulebook.book import Rulebook
from pipeline.topics import DEVICE_EVENTS

_decode_event = msgspec.json.Decoder(DeviceEvent).decode


class Start(msgspec.Struct, frozen=True):
    """The state that the explanation began with. `kind` `nothing`: of a device that was never
    heard, or what was given; `replayed`: as it was before the event, from the recorded events
    before it; `today`: as the log has it now. `text` says it, and what there is to know of it.
    """

    kind: Literal["nothing", "given", "replayed", "today"]
    text: str


class Untaken(msgspec.Struct, frozen=True):
    """A chain that a message did not enter, and why."""

    event: str
    chain: str
    why: str


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message, explained. `rules` is the version of the rules that it went through; `told` is
    in order. `before`: what was kept of each device before it, by `tenant/device`: `attributes` by
    scope, `alarms` by type, `telemetry` where chains need the last values.
    """

    tenant: str
    rules: str
    start: Start
    told: list[Told]
    untaken: list[Untaken]
    effects: Effects
    answers: list[dict[str, Any]] = []
    notes: list[str] = []
    before: dict[str, dict[str, Any]] = {}


class Kept(NamedTuple):
    """What the stages kept when the message came, and when it was done: of route, by key."""

    before: State
    after: State


def explained(
    book: Rulebook,
    trace: Trace,
    journal: Sequence[Outgoing],
    start: Start,
    *,
    kept: Kept,
    answers: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> Explanation:
    """Return the explanation of what `journal` and `trace` hold."""
    more = [*notes]
    if trace.left_out:
        more.append(f"{trace.left_out:,} more steps of nodes are left out")
    return Explanation(
        tenant=book.tenant,
        rules=book.version,
        start=start,
        told=trace.told,
        untaken=list(_untaken(book, trace.told, journal, kept.after)),
        effects=effects_of(journal, book.tenant),
        answers=list(answers),
        notes=more,
        before={key: shown for key, parts in kept.before.items() if (shown := _kept(parts))},
    )


def _kept(parts: dict[str, Any]) -> dict[str, Any]:
    """Return what a device's parts mean to people; not what nodes keep, nor how it is reached."""
    attributes = {
        part.removeprefix(ATTRIBUTES): value["values"]
        for part, value in parts.items()
        if part.startswith(ATTRIBUTES) and value["values"]
    }
    alarms = {
        part.removeprefix(ALARMS): value for part, value in parts.items() if part.startswith(ALARMS)
    }
    telemetry = parts.get(TELEMETRY_PART, {}).get("values", {})
    shown = {"attributes": attributes, "alarms": alarms, "telemetry": telemetry}
    return {name: value for name, value in shown.items() if value}


def _untaken(
    book: Rulebook,
    told: Sequence[Told],
    journal: Sequence[Outgoing],
    after: State,
) -> Iterator[Untaken]:
    ran = {(run.message["id"], run.chain) for run in told if isinstance(run, ChainRun)}
    for record in journal:
        if record.topic != DEVICE_EVENTS:
            continue
        event = _decode_event(record.value or b"")
        if not isinstance(event, DeviceMessage) or event.teller:
            continue
        device_type = event.device_type or _known(after, record.key).get("type", "")
        for entry in book.chains.values():
            on: On | None = entry.config.on
            if on is not None and (event.id, entry.name) not in ran:
                why = _why_not(on, event, device_type)
                yield Untaken(event.id, entry.name, why)


def _known(state: State, key: str) -> dict[str, Any]:
    known: dict[str, Any] = state.get(key, {}).get(DEVICE_PART, {})
    return known


def _why_not(on: On, event: DeviceMessage, device_type: str) -> str:
    if event.type not in on.messages:
        return f"it takes {_listed(on.messages)}, and this is `{event.type}`"
    if on.device_type and device_type not in on.device_type:
        is_type = f"is a `{device_type}`" if device_type else "has no type"
        return f"it takes devices of type {_listed(on.device_type)}, and this {is_type}"
    if on.integration and event.integration not in on.integration:
        return f"it takes what comes by {_listed(on.integration)}, not by `{event.integration}`"
    return (
        "the network server had sent this message before (a repeat), or it failed before its chains"
    )


def _listed(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)
