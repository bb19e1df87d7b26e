"""What recorded messages come to under one rulebook: each goes the whole way, in the order and at
the time at which it was recorded.

In: a rulebook, inputs in order, a state to begin with. Out: an `Outcome`: downlinks, deliveries
and dead letters by the message that they came of; each device's attributes and alarms at the end.
Network servers take every downlink, every answer arrives; nothing is random, so that the same
inputs always come to the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pipeline.convert.received import request_of
from pipeline.errors import MessageError
from pipeline.model.http import Response
from pipeline.model.record import CE_INTEGRATION, REPLY_TO, Outgoing, Record, split_key
from pipeline.ports import ScriptPort
from pipeline.rehearse.chain_test_config import StepConfig
from pipeline.rehearse.effects import Effects, effects_of
from pipeline.rehearse.harness import START_MS, Rehearsal, Stages
from pipeline.rehearse.messages import Entry
from pipeline.rehearse.observe import answer
from pipeline.rehearse.perform import Performer
from pipeline.rehearse.recorded import State, Timers
from pipeline.rehearse.uplinks import StepError
from pipeline.route.alarms import PART_PREFIX as ALARMS
from pipeline.route.attributes import PART_PREFIX as ATTRIBUTES
from pipeline.rulebook.book import Rulebook
from pipeline.topics import UPLINK_RECEIVED

STAGES = ("route", "downlink")

Progress = Callable[[int], None]
"""Told how many inputs are done."""


class Input(NamedTuple):
    """One message: a record as it was written, or an entry of a file. `id` is what people find it
    by; of an entry of a file its number.
    """

    id: str
    time_ms: int
    what: Record | Entry


class Begin(NamedTuple):
    """The state of all devices that both rulebooks begin with, by stage. `text` says which."""

    text: str
    state: dict[str, State]
    timers: dict[str, Timers]


NOTHING = Begin("nothing is known of any device", {}, {})


class Outcome(NamedTuple):
    """What came of all inputs. `answers` are those to requests, by the input's id; `attributes`
    and `alarms` the last ones, by `device/scope.key` and `device/type`.
    """

    effects: Effects
    answers: dict[str, Any]
    attributes: dict[str, Any]
    alarms: dict[str, Any]


def outcome_of(
    book: Rulebook,
    scripts: ScriptPort,
    inputs: Sequence[Input],
    begin: Begin,
    progress: Progress = lambda _done: None,
) -> Outcome:
    """Return what all inputs come to, in their order.

    RetryableError: the script engine does not start. UsageError is not raised: what one rulebook
    cannot take is an answer. Not inside a running event loop.
    """
    return asyncio.run(_outcome(book, scripts, inputs, begin, progress))


async def _outcome(
    book: Rulebook,
    scripts: ScriptPort,
    inputs: Sequence[Input],
    begin: Begin,
    progress: Progress,
) -> Outcome:
    start_ms = (inputs[0].time_ms if inputs else 0) or START_MS
    ids = _Ids()
    rehearsal = Rehearsal(Stages(book, scripts), now_ms=start_ms, new_id=ids)
    for stage, state in begin.state.items():
        rehearsal.engine.restore(stage, state, begin.timers.get(stage, ()))
    performer = Performer(rehearsal)
    answers: dict[str, Any] = {}
    for number, each in enumerate(inputs, 1):
        if each.time_ms > rehearsal.now_ms():
            await rehearsal.wait(each.time_ms - rehearsal.now_ms())
        ids.current = each.id
        said = await _enter(rehearsal, performer, each)
        if said is not None:
            answers[each.id] = said
        progress(number)
    state = rehearsal.engine.state("route")
    return Outcome(
        effects_of(rehearsal.journal, book.tenant),
        answers,
        dict(_parts(state, ATTRIBUTES)),
        dict(_parts(state, ALARMS)),
    )


async def _enter(rehearsal: Rehearsal, performer: Performer, each: Input) -> Any:
    """Let one input have its effects; return the answer, None where nobody is answered."""
    what = each.what
    if isinstance(what, Record):
        if what.topic == UPLINK_RECEIVED:
            return await _uplink(rehearsal, what)
        headers = {name: value for name, value in what.headers.items() if name != REPLY_TO}
        await rehearsal.append([Outgoing(what.topic, what.key, what.value, headers)])
        return None
    before = len(performer.answers)
    try:
        if isinstance(what, StepConfig):
            await performer.do(what)
        else:
            await performer.event(what)
    except StepError as error:
        return {"cannot": error.message}
    return _shown(performer.answers[-1]) if len(performer.answers) > before else None


async def _uplink(rehearsal: Rehearsal, record: Record) -> Any:
    integration = record.headers.get(CE_INTEGRATION) or split_key(record.key)[1]
    try:
        request = request_of(record)
    except MessageError as error:
        return {"cannot": error.message}
    return _shown(await rehearsal.enter(integration, request))


def _shown(response: Response) -> Any:
    given = answer(response)
    body = given["json"] if given["json"] is not None else given["text"]
    return {"status": given["status"], **({"body": body} if body else {})}


def _parts(state: State, prefix: str) -> Iterable[tuple[str, Any]]:
    for key, parts in state.items():
        device = split_key(key)[1]
        for part, value in parts.items():
            if not part.startswith(prefix):
                continue
            name = part.removeprefix(prefix)
            if prefix == ALARMS:
                yield f"{device}/{name}", value
            else:
                for attribute, now in value["values"].items():
                    yield f"{device}/{name}.{attribute}", now


class _Ids:
    """Gives what a message causes at the door the message's own id; the second and any further
    one of a message have a number behind it.
    """

    def __init__(self) -> None:
        self.current = ""
        self._given: dict[str, int] = {}

    def __call__(self) -> str:
        count = self._given[self.current] = self._given.get(self.current, 0) + 1
        return self.current if count == 1 else f"{self.current}~{count}"
