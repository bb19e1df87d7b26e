"""What other rules would have done: on recorded messages and on files of them."""

from __future__ import annotations

from asyncio import to_thread
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.rehearse.diff import Comparison, Kind, compare
from pipeline.rehearse.diff_text import lines
from pipeline.rehearse.effects import Effect, Effects, effects_of
from pipeline.rehearse.harness import START_MS, Rehearsal, Stages
from pipeline.rehearse.inputs import Span, inputs_of_file, inputs_of_log
from pipeline.rehearse.messages import read_messages
from pipeline.rehearse.outcome import NOTHING, Begin, Input, Outcome, outcome_of
from pipeline.rehearse.perform import Performer
from tests.unit.rehearse.recorded_engine import EngineRecords

LIFE = b"""[
  {"uplink": {"integration": "fox", "device_id": "1A2B", "bytes": "16"}},
  {"wait": "10m"},
  {"uplink": {"integration": "fox", "device_id": "1A2B", "bytes": "05"}},
  {"wait": "10m"},
  {"attributes": {"device": "1A2B", "set": {"cooling": false}}},
  {"wait": "1s"},
  {"uplink": {"integration": "stack", "device_id": "b", "bytes": "1e", "f_port": 1}}
]"""


@pytest.fixture
async def lived(rules: Any, scripts: Any) -> Rehearsal:
    """A rehearsal of LIFE."""
    rehearsal = Rehearsal(Stages(rules.book(), scripts))
    performer = Performer(rehearsal)
    for step in read_messages(LIFE, "m"):
        await performer.do(step)  # type: ignore[arg-type]
    return rehearsal


def edited(rules: Any, old: str, new: str, file: str = "chains/cool.yaml") -> Any:
    """The rules with one text in place of another."""
    path: Path = rules.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return rules.book()


def compared(
    rules: Any, scripts: Any, inputs: list[Input], new: Any, begin: Begin = NOTHING
) -> Comparison:
    old = rules.book() if new is None else new[0]
    other = old if new is None else new[1]
    return compare(
        outcome_of(old, scripts, inputs, begin), outcome_of(other, scripts, inputs, begin)
    )


def kind(comparison: Comparison, name: str) -> Kind:
    (found,) = (each for each in comparison.kinds if each.kind == name)
    return found


def counts(found: Kind) -> tuple[int, int, int, int]:
    return found.same, found.changed, found.gone, found.new


async def test_same_rules(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """The same rules do the same: what the log says they did, in ids and in order."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    book = rules.book()
    outcome = await to_thread(outcome_of, book, scripts, inputs, NOTHING)
    again = await to_thread(outcome_of, book, scripts, inputs, NOTHING)

    assert outcome == again
    assert [each.id for each in inputs] == ["r1", "r2", "r3", "r4"]
    assert not compare(outcome, again).differs
    recorded = effects_of(lived.journal, "acme")
    assert [each.id for each in outcome.effects.downlinks] == [
        each.id for each in recorded.downlinks
    ]
    assert outcome.effects.deliveries == recorded.deliveries
    assert outcome.attributes == {"1A2B/shared.cooling": False, "sample-app:b/shared.cooling": True}


async def test_other_threshold(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """A changed expression shows in downlinks, answers, attributes, with the message's id."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    old = rules.book()
    new = edited(rules, "temperature > 20", "temperature > 25")
    comparison = await to_thread(compared, rules, scripts, inputs, (old, new))

    assert comparison.differs
    downlinks = kind(comparison, "downlinks")
    assert counts(downlinks) == (2, 0, 1, 0)
    assert downlinks.examples[0].message == "r1"
    assert downlinks.examples[0].what == "1A2B → fox"
    (answer,) = kind(comparison, "answers").examples
    assert answer.fields["status"] == [200, 204]
    assert counts(kind(comparison, "deliveries")) == (3, 0, 0, 0)


async def test_changed_delivery(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """What changed inside of a delivery is told by its path; examples have a limit."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    old = rules.book()
    new = edited(rules, "send: {to: out}", 'send: {to: out, body: {t: "${telemetry.temperature}"}}')
    one, other = [
        await to_thread(outcome_of, book, scripts, inputs, NOTHING) for book in (old, new)
    ]
    deliveries = kind(compare(one, other, examples=1), "deliveries")

    assert counts(deliveries) == (0, 3, 0, 0)
    (example,) = deliveries.examples
    assert example.fields["t"] == [None, 22]


async def test_converters_count_only_for_uplinks(
    rules: Any, scripts: Any, lived: Rehearsal
) -> None:
    """As received, a changed converter changes what comes; as decoded then, it does not."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    events = inputs_of_log(EngineRecords(lived), "acme", Span(), "events")
    old = rules.book()
    new = edited(rules, "acme/meter", "acme/sensor", "integrations/fox.yaml")
    by_uplinks = await to_thread(compared, rules, scripts, inputs, (old, new))
    by_events = await to_thread(compared, rules, scripts, events, (old, new))

    assert len(events) == len(inputs)
    assert kind(by_uplinks, "downlinks").differs
    assert not kind(by_events, "deliveries").differs


async def test_dead_letters(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """Messages that the new rules fail on are new dead letters."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    old = rules.book()
    new = edited(rules, "telemetry.temperature > 20", "telemetry.humidity > 20")
    letters = kind(await to_thread(compared, rules, scripts, inputs, (old, new)), "dead letters")

    assert counts(letters) == (0, 0, 0, 3)
    assert letters.examples[0].after["reason"] == "expression"


async def test_start_of_the_log(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """From the log's state, what is there already causes nothing anew."""
    recorded = EngineRecords(lived)
    inputs = inputs_of_log(recorded, "acme", Span(limit=1), "uplinks")
    begin = Begin("now", {stage: recorded.state(stage) for stage in ("route", "downlink")}, {})
    book = rules.book()
    from_nothing = await to_thread(outcome_of, book, scripts, inputs, NOTHING)
    from_log = await to_thread(outcome_of, book, scripts, inputs, begin)

    assert [each.id for each in inputs] == ["r4"]
    assert len(from_nothing.effects.downlinks) == 1
    assert from_log.effects.downlinks == []
    assert len(from_log.attributes) == 2


async def test_span(lived: Rehearsal) -> None:
    """A time from on, a time before, and the last so many; another tenant has none."""
    recorded = EngineRecords(lived)
    minute = 60_000

    def ids(span: Span, tenant: str = "acme") -> list[str]:
        return [each.id for each in inputs_of_log(recorded, tenant, span, "uplinks")]

    assert ids(Span(since_ms=START_MS + minute)) == ["r2", "r3", "r4"]
    assert ids(Span(until_ms=START_MS + minute)) == ["r1"]
    assert ids(Span(limit=2)) == ["r3", "r4"]
    assert ids(Span(), "other") == []


def test_file(rules: Any, scripts: Any) -> None:
    """Steps of a file pass as in a chain test; events at their times."""
    text = (
        b'{"kind": "message", "id": "e1", "type": "uplink", "tenant": "elsewhere", "device": "a",'
        b' "integration": "stack", "device_type": "sensor", "time_ms": 1767225600000,'
        b' "received_ms": 1767225600000, "telemetry": {"temperature": 22}}\n'
        b'{"message": {"device": "b", "device_type": "sensor", "telemetry": {"temperature": 30}}}\n'
        b'{"uplink": {"integration": "gone", "device_id": "x"}}'
    )
    inputs = inputs_of_file(read_messages(text, "m"))
    outcome = outcome_of(rules.book(), scripts, inputs[:2], NOTHING)

    assert [(each.id, each.time_ms) for each in inputs][:2] == [("e1", START_MS), ("2", START_MS)]
    assert [each.device for each in outcome.effects.deliveries] == ["a", "b"]


async def test_integration_that_is_gone(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """An integration that the new rules do not have refuses what came by it: its answers say so."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    old = rules.book()
    (rules.folder / "integrations/fox.yaml").rename(rules.folder / "integrations/fux.yaml")
    new = rules.book()
    comparison = await to_thread(compared, rules, scripts, inputs, (old, new))

    statuses = [example.fields["status"] for example in kind(comparison, "answers").examples]
    assert statuses == [[200, 401], [204, 401]]


def test_null_is_not_nothing() -> None:
    """A delivery of null that is gone is a difference; ints and floats of one value are none."""

    def outcome(*bodies: Any) -> Outcome:
        deliveries = [Effect(str(n), "t", "d", "out", body) for n, body in enumerate(bodies)]
        return Outcome(Effects(deliveries=deliveries), {}, {}, {})

    assert counts(kind(compare(outcome(None), outcome()), "deliveries")) == (0, 0, 1, 0)
    assert counts(kind(compare(outcome(1), outcome(1.0)), "deliveries")) == (1, 0, 0, 0)
    assert counts(kind(compare(outcome(1), outcome(True)), "deliveries")) == (0, 1, 0, 0)


async def test_shown(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """People read counts, and what is gone and new; machines get plain JSON."""
    inputs = inputs_of_log(EngineRecords(lived), "acme", Span(), "uplinks")
    old = rules.book()
    new = edited(rules, "temperature > 20", "temperature > 25")
    comparison = await to_thread(compared, rules, scripts, inputs, (old, new))
    said = [line.text for line in lines(comparison)]

    assert "downlinks: 2 the same, 1 gone" in said
    assert "  1A2B → fox  (message r1)" in said
    assert "deliveries: 3, all the same" in said
    assert said[-1] == "they differ"
    assert msgspec.json.decode(msgspec.json.encode(comparison))["kinds"][0]["gone"] == 1
