"""Timers of nodes on the engines: clocks that jump, restarts, rules that change meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.record import EVENT_ID, TENANT, TRACE_ID, Outgoing, device_key
from pipeline.route.stage import Route
from pipeline.rulebook.book import Rulebook
from tests.contract.clock import START_MS
from tests.contract.engine_harness import Harness, MemoryHarness, SqliteHarness
from tests.unit.route.bench import rulebook, uplink

DAY_MS = 86_400_000
DELAY = """
chain: main
on: {messages: uplink}
nodes:
  - {name: wait, delay: 10s}
  - {name: out, send: {to: archive, body: "${telemetry.n}"}}
"""
HOURLY = """
chain: main
on: {messages: uplink}
nodes:
  - {name: each hour, schedule: {every: 1h}, otherwise: stop}
  - {name: out, send: {to: archive, body: "${metadata.schedule.due}"}}
"""
SILENCE = """
chain: main
on: {messages: uplink}
nodes:
  - {name: quiet, silence: {after: 1m}, back: again}
  - {name: out, send: {to: archive, body: silent}, then: stop}
  - {name: again, send: {to: archive, body: back}}
"""
CALL = """
chain: main
on: {messages: uplink}
nodes:
  - {name: ask, remote_call: {to: application, timeout: 10s}, timeout: late}
  - {name: got, send: {to: archive, body: got}, then: stop}
  - {name: late, send: {to: archive, body: late}}
"""


class Run:
    """The stage route on one engine, under a clock that the test sets."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.said = 0

    def start(self, *chains: str) -> None:
        books: dict[str, Rulebook] = {"t": rulebook(*chains)}
        self.harness.start([Route(lambda: books, Registry())])

    def say(self, **telemetry: Any) -> None:
        """Let the device say something now."""
        self.said += 1
        now_ms = self.harness.clock.now_ms
        event = uplink(self.said, telemetry=telemetry, time_ms=now_ms, received_ms=now_ms)
        headers = {EVENT_ID: event.id, TRACE_ID: f"u{self.said}", TENANT: "t"}
        key = device_key("t", "dev")
        self.harness.append(
            [Outgoing(topics.DEVICE_EVENTS, key, msgspec.json.encode(event), headers)]
        )
        self.harness.run()

    def at(self, after_ms: int) -> None:
        """Set the clock so far after (or before) the start."""
        self.harness.clock.now_ms = START_MS + after_ms
        self.harness.run()

    def bodies(self) -> list[Any]:
        """What the sink `archive` got so far."""
        records = self.harness.records(topics.delivery_topic("t", "archive"))
        return [orjson.loads(record.value or b"")["body"] for record in records]

    def letters(self) -> list[DeadLetter]:
        records = self.harness.records(topics.DEAD_LETTER)
        return [msgspec.json.decode(record.value or b"", type=DeadLetter) for record in records]


@pytest.fixture(params=[SqliteHarness, MemoryHarness], ids=lambda kind: kind.name)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    harness: Harness = request.param(tmp_path)
    yield Run(harness)
    harness.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Run]:
    harness = SqliteHarness(tmp_path)
    yield Run(harness)
    harness.stop()


def test_clock_that_jumps_ahead_and_back(run: Run) -> None:
    """A message that waits goes on once, however the clock jumps; one that comes after the jump
    back goes on too, at the latest when the clock is there again.
    """
    run.start(DELAY)
    run.say(n=1)
    run.at(DAY_MS)
    run.at(5_000)
    assert run.bodies() == [1]
    run.say(n=2)
    run.at(20_000)
    run.at(DAY_MS)
    assert run.bodies() == [1]
    run.at(DAY_MS + 10_000)
    run.at(DAY_MS + 20_000)

    assert run.bodies() == [1, 2]
    assert run.letters() == []


def test_clock_that_goes_back_before_the_time(run: Run) -> None:
    """A clock that goes back while a message waits neither loses it nor lets it go on early."""
    run.start(DELAY)
    run.say(n=1)
    run.at(-DAY_MS)
    run.at(9_999)
    assert run.bodies() == []
    run.at(10_000)
    run.at(-DAY_MS)
    run.at(10_000)

    assert run.bodies() == [1]


def test_schedule_over_a_jump(run: Run) -> None:
    """What was due while the clock jumped over it comes once, late; after a jump back no hour
    comes twice.
    """
    run.start(HOURLY)
    run.say(n=1)
    run.at(DAY_MS)
    assert len(run.bodies()) == 1
    for hour in range(1, 24):
        run.at(hour * 3_600_000)
    assert len(run.bodies()) == 1
    run.at(DAY_MS + 3_600_000)

    due = run.bodies()
    assert len(due) == len(set(due)) == 2


def test_silence_over_a_jump(run: Run) -> None:
    """A device that the clock's jump made silent is said to be so once, and to be back."""
    run.start(SILENCE)
    run.say(n=1)
    run.at(DAY_MS)
    run.at(0)
    run.say(n=2)
    run.at(30_000)

    assert run.bodies() == ["silent", "back"]


def test_call_over_a_jump(run: Run) -> None:
    """The end of a call's time comes once."""
    run.start(CALL)
    run.say(n=1)
    run.at(DAY_MS)
    run.at(0)
    run.at(2 * DAY_MS)

    assert run.bodies() == ["late"]


def test_restart_with_a_clock_that_is_behind(embedded: Run) -> None:
    """Timers outlive the process; one that starts with a clock that is behind, or ahead, fires each
    once.
    """
    embedded.start(DELAY)
    embedded.say(n=1)
    embedded.harness.stop()
    embedded.harness.clock.now_ms = START_MS - DAY_MS
    embedded.start(DELAY)
    embedded.at(-DAY_MS + 60_000)
    assert embedded.bodies() == []
    embedded.harness.stop()
    embedded.harness.clock.now_ms = START_MS + DAY_MS
    embedded.start(DELAY)
    embedded.harness.run()
    embedded.harness.stop()
    embedded.start(DELAY)
    embedded.harness.run()

    assert embedded.bodies() == [1]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (DELAY, DELAY.replace("name: wait", "name: rest"), "node_gone"),
        (DELAY, DELAY.replace("chain: main", "chain: other"), "node_gone"),
        (DELAY, DELAY.replace("wait, delay: 10s", "wait, log: {message: x}"), "node"),
        (CALL, CALL.replace("name: ask", "name: query"), "node_gone"),
    ],
    ids=["another name", "another chain", "another kind", "a call"],
)
def test_node_that_is_gone(embedded: Run, before: str, after: str, reason: str) -> None:
    """A message whose node is gone when its time comes is a dead letter that holds it whole."""
    embedded.start(before)
    embedded.say(n=7)
    embedded.harness.stop()
    embedded.start(after)
    embedded.at(10_000)
    embedded.at(DAY_MS)

    (letter,) = embedded.letters()
    assert letter.reason == reason
    assert orjson.loads(letter.value or b"")["telemetry"] == {"n": 7}
    assert embedded.bodies() == []
    assert embedded.harness.timers("route") == []


def test_edit_around_a_node_that_waits(embedded: Run) -> None:
    """A message that waits goes on by the rules that are there then."""
    embedded.start(DELAY)
    embedded.say(n=7)
    embedded.harness.stop()
    added = '  - {name: more, set: {fields: {telemetry.n: "${telemetry.n + 1}"}}}\n'
    embedded.start(DELAY.replace("  - {name: out", f"{added}  - {{name: out"))
    embedded.at(10_000)

    assert embedded.bodies() == [8]
