"""A message that is made up (an uplink of any dialect, an event, a chain test) → its explanation.

It goes the whole way, door, converter, chains, downlink, on the real stages in memory, with each
node watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pipeline.errors import UsageError
from pipeline.ports import ScriptPort
from pipeline.rehearse.chain_test_config import GivenConfig, StepConfig
from pipeline.rehearse.explanation import Explanation, Kept, Start, explained
from pipeline.rehearse.harness import Rehearsal, Stages
from pipeline.rehearse.messages import Entry
from pipeline.rehearse.observe import answer
from pipeline.rehearse.perform import Performer
from pipeline.rehearse.recorded import Records
from pipeline.rehearse.trace import Trace
from pipeline.rehearse.uplinks import StepError
from pipeline.rulebook.book import Rulebook
from pipeline.topics import DEVICE_EVENTS

NOTHING = Start("nothing", "nothing is known of the device before")


def explain(
    book: Rulebook,
    scripts: ScriptPort,
    entries: Sequence[Entry],
    *,
    now_ms: int,
    given: GivenConfig | None = None,
    recorded: Records | None = None,
) -> Explanation:
    """Return what happens to messages one after the other, at `now_ms` and from there on.

    `given` is there before, as in a chain test; `recorded`: today's state of the devices is.
    UsageError: a step cannot be done. RetryableError: the script engine does not start. Not
    inside a running event loop.
    """
    return asyncio.run(
        _explain(book, scripts, entries, now_ms=now_ms, given=given, recorded=recorded)
    )


async def _explain(
    book: Rulebook,
    scripts: ScriptPort,
    entries: Sequence[Entry],
    *,
    now_ms: int,
    given: GivenConfig | None,
    recorded: Records | None,
) -> Explanation:
    trace = Trace()
    trace.muted = True
    stages = Stages(book, trace.scripts(scripts), watch=trace.watch)
    start, keys = NOTHING, set[str]()
    if given is not None and given != GivenConfig():
        start = Start("given", "what is given, and nothing else, is known before")
    if recorded is not None:
        # Only a converter may know how its devices are called: the first way through finds out.
        first = Rehearsal(stages, now_ms=now_ms)
        await _perform(first, entries, given)
        keys = {record.key for record in first.journal if record.topic == DEVICE_EVENTS}
        start = Start("today", f"today's state of {', '.join(sorted(keys))} in {recorded.name}")
    rehearsal = Rehearsal(stages, now_ms=now_ms)
    if recorded is not None:
        for key in sorted(keys):
            for stage in ("route", "downlink"):
                rehearsal.engine.restore(stage, recorded.state(stage, key))
    performer = Performer(rehearsal)
    if given is not None:
        await _given(performer, given)
    trace.muted = False
    begin, before = len(rehearsal.journal), rehearsal.engine.state("route")
    notes = await _do(performer, entries)
    return explained(
        book,
        trace,
        rehearsal.journal[begin:],
        start,
        kept=Kept(before, rehearsal.engine.state("route")),
        answers=[_shown(answer(response)) for response in performer.answers],
        notes=notes,
    )


async def _perform(
    rehearsal: Rehearsal, entries: Sequence[Entry], given: GivenConfig | None
) -> None:
    performer = Performer(rehearsal)
    if given is not None:
        await _given(performer, given)
    await _do(performer, entries)


async def _given(performer: Performer, given: GivenConfig) -> None:
    try:
        await performer.give(given)
    except StepError as error:
        raise UsageError(f"given: {error.message}") from None


async def _do(performer: Performer, entries: Sequence[Entry]) -> list[str]:
    """Do all steps; return what there is to note."""
    for number, entry in enumerate(entries, 1):
        try:
            if isinstance(entry, StepConfig):
                await performer.do(entry)
            else:
                await performer.event(entry)
        except StepError as error:
            raise UsageError(f"message {number}: {error.message}") from None
        except RuntimeError as error:  # of the engine: rules that feed themselves
            return [f"it does not end: {error}"]
    refused = [one for one in performer.answers if one.status >= 400]
    return [f"{len(refused)} of them refused at the door"] if refused else []


def _shown(given: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without saying the same thing twice."""
    body = given["json"] if given["json"] is not None else given["text"]
    shown = {"status": given["status"]}
    return {**shown, "body": body} if body else shown
