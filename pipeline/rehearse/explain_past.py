"""An event of the past, by its id → its explanation, by today's rules.

The device's recorded events up to that one go through the real stages in memory, unwatched, so
that the state is what it was; then the event does, watched. Where the log does not reach back to
the device's first event, today's state stands in; the explanation says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.convert.stage import Convert
from pipeline.downlink.stage import DownlinkStage
from pipeline.errors import UsageError
from pipeline.metrics import Registry
from pipeline.model.record import (
    CAUSE_ID,
    CE_ID,
    EVENT_ID,
    RULES_VERSION,
    TRACE_ID,
    Outgoing,
    Record,
)
from pipeline.ports import Batch, DeviceState, ScriptPort, Stage
from pipeline.rehearse.explanation import Explanation, Kept, Start, explained
from pipeline.rehearse.recorded import Records
from pipeline.rehearse.trace import Trace
from pipeline.route.message import time_text
from pipeline.route.stage import Route
from pipeline.rulebook.book import Rulebook
from pipeline.stream import MemoryEngine
from pipeline.topics import DEVICE_EVENTS, UPLINK_RECEIVED

HISTORY_MAX = 100_000
"""Events of the device that are replayed to find its state; today's stands in for a longer one."""
STEPS_MAX = 10_000
"""Batches that one event may cause, timers before it included."""


class Past(NamedTuple):
    """What was recorded of an id: the uplink as it was received, where it is still there, and the
    device's events, the last of which is about it. `history` None: not all of them are there.
    """

    wanted: str
    uplink: Record | None
    key: str
    events: Sequence[Record]
    history: Sequence[Record] | None
    why_not: str = ""
    others: Sequence[str] = ()


def explain_past(
    book: Rulebook, scripts: ScriptPort, recorded: Records, wanted: str
) -> Explanation:
    """Explain what came of an uplink, a command or an event, by its id.

    UsageError: the log has nothing of this id, or of another tenant only. RetryableError: the
    script engine does not start.
    """
    past = find(recorded, wanted, book.tenant)
    trace = Trace()
    ported = trace.scripts(scripts)
    converted = [] if past.uplink is None else _convert(book, ported, past.uplink)
    if not past.events:
        nothing = Start("nothing", "no event of a device came of it")
        return explained(
            book, trace, converted, nothing, kept=Kept({}, {}), notes=list(_notes(past))
        )
    trace.muted = True
    replay = _Replay(book, ported, trace)
    start, notes = _start(replay, past, recorded, book)
    begin, before = len(replay.journal), replay.state("route")
    for record in past.history[-_span(past) :] if past.history else past.events:
        replay.take(record, watched=_is(record, wanted))
    kept = Kept(before, replay.state("route"))
    journal = [record for record in replay.journal[begin:] if _about(record, past.events)]
    return explained(book, trace, journal, start, kept=kept, notes=[*notes, *_notes(past)])


def find(recorded: Records, wanted: str, tenant: str) -> Past:
    """Look for an id. UsageError: there is none."""
    found = [record for record in recorded.records(DEVICE_EVENTS) if _is(record, wanted)]
    causes = {wanted, *(record.headers.get(CAUSE_ID, wanted) for record in found)}
    received = recorded.records(UPLINK_RECEIVED)
    uplink = next((each for each in received if any(_is(each, cause) for cause in causes)), None)
    mine = [record for record in found if record.key.partition("/")[0] == tenant]
    if not mine and uplink is None:
        whose = f"; it is of the tenant {found[0].key.partition('/')[0]}" if found else ""
        raise UsageError(
            f"{recorded.name} has no event, uplink or command of the id {wanted}{whose}; ids stand"
            " in the headers of every record, in answers and in dead letters",
            code="no_event",
        )
    if not mine:
        return Past(wanted, uplink, "", (), ())
    key = mine[0].key
    events = [record for record in mine if record.key == key]
    others = sorted({record.key.partition("/")[2] for record in mine} - {key.partition("/")[2]})
    history, why_not = _history(recorded, key, events[-1])
    return Past(wanted, uplink, key, events, history, why_not, others)


def _history(recorded: Records, key: str, last: Record) -> tuple[list[Record] | None, str]:
    """Return a device's events up to one; None, and why: they are not all there."""
    if not recorded.is_whole(DEVICE_EVENTS, key):
        return None, "the log does not reach back to the device's first event"
    history = []
    for record in recorded.records(DEVICE_EVENTS, key=key):
        history.append(record)
        if (record.partition, record.offset) == (last.partition, last.offset):
            break
        if len(history) > HISTORY_MAX:
            return None, f"the device has more than {HISTORY_MAX:,} events"
    return history, ""


def _start(
    replay: _Replay, past: Past, recorded: Records, book: Rulebook
) -> tuple[Start, list[str]]:
    """Bring the device's state to what it was; return what it is, and notes."""
    if past.history is None:
        for stage in ("route", "downlink"):
            replay.restore(stage, recorded.state(stage, past.key))
        text = f"today's state of {past.key} in {recorded.name}: {past.why_not}"
        return Start("today", text), []
    before = past.history[: -_span(past)] if past.events else ()
    for record in before:
        replay.take(record, watched=False)
    if not before:
        return Start("replayed", "nothing: this is the first that was heard of the device"), []
    since = time_text(before[0].time_ms)
    text = f"replayed from the device's {len(before):,} events before it, the first of {since}"
    versions = {record.headers.get(RULES_VERSION, "") for record in past.history} - {
        "",
        book.version,
    }
    notes = []
    if versions:
        notes.append(
            f"the rules were other ones then ({', '.join(sorted(versions))}); this, and the state"
            f" before it, is by those of today ({book.version})"
        )
    return Start("replayed", text), notes


def _span(past: Past) -> int:
    """Return how many of the history's last records begin with the first one in question."""
    assert past.history is not None
    first = past.events[0]
    for back, record in enumerate(reversed(past.history), 1):
        if (record.partition, record.offset) == (first.partition, first.offset):
            return back
    return len(past.history)


def _convert(book: Rulebook, scripts: ScriptPort, uplink: Record) -> list[Outgoing]:
    books = {book.tenant: book}
    stage = Convert(lambda: books, scripts, Registry())
    state = DeviceState(lambda _key: {})
    return stage.handle(Batch(uplink.partition, [uplink]), state, uplink.time_ms)


def _notes(past: Past) -> Iterator[str]:
    if past.uplink is None:
        yield "the log has no uplink as it was received for this, so no decoding is shown"
    if past.others:
        yield f"the same request was also of {', '.join(past.others)}"


def _is(record: Record, wanted: str) -> bool:
    headers = record.headers
    return wanted in (headers.get(EVENT_ID), headers.get(TRACE_ID), headers.get(CE_ID))


def _about(record: Outgoing, events: Sequence[Record]) -> bool:
    traces = {each.headers.get(TRACE_ID) for each in events}
    return record.headers.get(TRACE_ID) in traces


class _Replay(MemoryEngine):
    """Route and downlink over recorded events. What they would write to `device.events` is left
    out: it was recorded too, and comes from there.
    """

    def __init__(self, book: Rulebook, scripts: ScriptPort, trace: Trace) -> None:
        books = {book.tenant: book}
        metrics = Registry()
        stages: list[Stage] = [
            Route(lambda: books, metrics, watch=trace.watch, scripts=scripts),
            DownlinkStage(lambda: books, scripts, metrics),
        ]
        super().__init__(stages, steps_max=STEPS_MAX)
        self._trace = trace
        self.journal: list[Outgoing] = []

    def append(self, records: Sequence[Outgoing]) -> None:
        """Take what the stages wrote."""
        kept = [record for record in records if record.topic != DEVICE_EVENTS]
        super().append(kept)
        self.journal += kept

    def take(self, record: Record, *, watched: bool) -> None:
        """Let time pass until a record came, then work on it."""
        self.advance(record.time_ms)
        out = Outgoing(record.topic, record.key, record.value, record.headers)
        super().append([out])
        self.journal.append(out)
        self._trace.muted = not watched
        self.run_until_idle()
        self._trace.muted = True
