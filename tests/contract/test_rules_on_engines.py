"""What the tests of rules send in gives the same on every engine, with the real stages.

Each chain test of a rules folder runs in memory, where it is held against what it says. All that
came in from outside is kept, and goes through another engine as one long day; topics and state
there must be those of the engine in memory after the same day. (On Faust the real stages run in
tests/kafka/test_program_faust.py.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DEAD_LETTER_TOPIC
from pipeline.model.record import Outgoing, Record
from pipeline.ports import ScriptPort
from pipeline.rehearse.chain_tests import load_chain_tests, run_chain_tests
from pipeline.rehearse.harness import Rehearsal, Stages
from pipeline.rulebook.book import Rulebook
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port
from tests.contract.clock import START_MS
from tests.contract.engine_harness import MARKS, Harness, MemoryHarness, SqliteHarness
from tests.contract.kafka_harness import KafkaHarness
from tests.rules.folders import EXAMPLES

DEMO = Path(__file__).parents[2] / "rules"
ON: dict[type[Harness], Sequence[Path]] = {
    SqliteHarness: (DEMO, *EXAMPLES),
    KafkaHarness: (DEMO, EXAMPLES[0]),
}
PAUSE_MS = 3_600_000  # between the end of a test and the next one's start
STATES = {topics.DEVICE_STATE: "route", topics.DOWNLINK_STATE: "downlink"}
WHERE = ("id", "partition", "offset")  # what a dead letter says of the place it was on


_ID = re.compile(r"\b(r\d+)\b")


class Step(NamedTuple):
    """Records from outside, and when they came."""

    now_ms: int
    records: tuple[Outgoing, ...]


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptPort]:
    port = script_port(ScriptLimits(), Registry())
    yield port
    port.close()


def day_of(book: Rulebook, scripts: ScriptPort, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Run the folder's tests; return what came in, as if one test came after the other."""
    taken: list[Step] = []
    take = Rehearsal.take

    def keep(self: Rehearsal, records: Sequence[Outgoing]) -> None:
        taken.append(Step(self.now_ms(), tuple(records)))
        take(self, records)

    monkeypatch.setattr(Rehearsal, "take", keep)
    day: list[Step] = []
    for number, test in enumerate(load_chain_tests(book)):
        taken.clear()
        (result,) = run_chain_tests(book, scripts, tests=[test])
        assert result.ok, "\n".join(map(str, result.differences))
        if taken:
            later_ms = (day[-1].now_ms + PAUSE_MS if day else START_MS) - taken[0].now_ms
            day += [
                Step(step.now_ms + later_ms, tuple(renamed(each, number) for each in step.records))
                for step in taken
            ]
    monkeypatch.undo()
    return day


def renamed(record: Outgoing, number: int) -> Outgoing:
    """Return a record with ids of its own for its test: each test counts from `r1`."""

    def rename(text: str) -> str:
        return _ID.sub(rf"\1t{number}", text)

    headers = {name: rename(text) for name, text in record.headers.items()}
    value = None if record.value is None else rename(record.value.decode()).encode()
    return Outgoing(record.topic, record.key, value, headers, record.partition)


def run(harness: Harness, stages: Stages, day: Sequence[Step]) -> None:
    """Send the day through an engine; what came in at one time is one batch or several."""
    harness.start(stages.all)
    for now_ms, steps in groupby(day, key=lambda step: step.now_ms):
        harness.clock.now_ms = now_ms
        harness.run()  # timers first, on every engine
        harness.append([record for step in steps for record in step.records])
        harness.run()


def by_key(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Return what a topic holds for each key, in order; a dead letter without its old place."""
    found: dict[str, list[Any]] = defaultdict(list)
    for record in records:
        value: Any = orjson.loads(record.value) if record.value else None
        if record.topic == DEAD_LETTER_TOPIC:
            value = {name: each for name, each in value.items() if name not in WHERE}
            found[record.key].append(value)
        else:
            found[record.key].append((value, record.headers))
    return dict(found)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        pytest.param(kind, folder, id=f"{folder.name}-{kind.name}", marks=MARKS.get(kind.name, ()))
        for kind, folders in ON.items()
        for folder in folders
    ],
)
def test_a_day_is_the_same_on_every_engine(
    kind: type[Harness],
    folder: Path,
    scripts: ScriptPort,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each topic has the same records for each key, in the same order, and the state is equal."""
    (book,) = load_rules([folder], scripts, {}).values()
    day = day_of(book, scripts, monkeypatch)
    expected = MemoryHarness(tmp_path)
    run(expected, Stages(book, scripts), day)
    assert expected.engine is not None
    names = expected.engine.topics()
    found = kind(tmp_path)
    try:
        if isinstance(found, KafkaHarness):
            found.make(*names)
        run(found, Stages(book, scripts), day)
        for topic in names:
            there, here = by_key(found.records(topic)), by_key(expected.records(topic))
            assert there.keys() == here.keys(), topic
            for key, records in here.items():
                assert there[key] == records, (topic, key)
        for topic, stage in STATES.items():
            kept = topic.partition(".")[0] if isinstance(found, KafkaHarness) else stage
            assert found.state(kept) == expected.state(stage), topic
        assert len(expected.records(topics.DEVICE_EVENTS)) > len(day) / 2, "it was a busy day"
    finally:
        found.stop()
