"""From the embedded log to Kafka: the stages go on where they stood."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.stream import SqliteLog
from pipeline.stream.kafka_move import CHANGELOGS, Moved, move_state
from tests.contract.engine_harness import FunctionStage, SqliteHarness, record, tally, values
from tests.contract.kafka_harness import KafkaHarness

KEYS = [f"t/dev #{number} %" for number in range(20)]
ONE = {"stage": "stage.state"}


class SpreadHarness(KafkaHarness):
    """Several partitions, so that a part on a wrong one is not found."""

    partitions = 3


@pytest.fixture
def old(tmp_path: Path) -> SqliteHarness:
    """An embedded log in which each key was counted twice and has a timer."""
    harness = SqliteHarness(tmp_path)
    harness.start([FunctionStage(tally)])
    harness.append([record(key, text) for key in KEYS for text in ("a", "timer 500")])
    harness.run()
    harness.stop()
    return harness


@pytest.fixture
def new(tmp_path: Path) -> SpreadHarness:
    """A cluster on which the topics are there and nobody has worked."""
    harness = SpreadHarness(tmp_path)
    harness.make("in", "out", compacted=["stage.state"])
    return harness


def test_stages_go_on_where_they_stood(old: SqliteHarness, new: SpreadHarness) -> None:
    """State and timers are the same on Kafka, the next record is counted on, timers fire once; a
    move that is repeated before changes nothing.
    """
    move_state(old.path, new.kafka, ONE)

    moved = move_state(old.path, new.kafka, ONE)

    assert moved == [Moved("stage", 2 * len(KEYS), len(KEYS))]
    assert new.state("stage") == old.state("stage")
    assert new.timers("stage") == old.timers("stage")
    new.start([FunctionStage(tally)])
    new.append([record(key, "b") for key in KEYS])
    new.run()
    assert sorted(values(new.records("out"))) == ["3 b"] * len(KEYS)
    new.clock.now_ms += 500
    new.run()
    new.stop()
    fired = [text for text in values(new.records("out")) if text.startswith("fired")]
    assert len(fired) == len(KEYS)


def test_nothing_moves_where_workers_have_run(old: SqliteHarness, new: SpreadHarness) -> None:
    """State is not mixed with that of workers which have committed there."""
    new.start([FunctionStage(tally)])
    new.append([record("t/other", "a")])
    new.run()
    new.stop()

    with pytest.raises(UsageError, match=r"have run on .* already"):
        move_state(old.path, new.kafka, ONE)
    assert list(new.state("stage")) == ["t/other"]


def test_nothing_moves_that_is_not_finished(old: SqliteHarness, new: SpreadHarness) -> None:
    """A log that a process has, or in which records wait, is left as it is; so is one whose topics
    are missing on Kafka.
    """
    with pytest.raises(UsageError, match=r"no topic .*funicular topics create"):
        move_state(old.path, new.kafka, {"stage": "other.state"})
    log = SqliteLog.open(old.path, old.settings)
    log.append_blocking([record("t/late", "a")])
    try:
        with pytest.raises(UsageError, match="is open in"):
            move_state(old.path, new.kafka, ONE)
    finally:
        log.close()
    with pytest.raises(UsageError, match="1 for stage in in"):
        move_state(old.path, new.kafka, ONE)
    assert new.state("stage") == {}


def test_the_table_says_what_moves() -> None:
    """All changelogs of the table of topics are moved, each for the stage that writes it."""
    assert CHANGELOGS == {"route": "device.state", "downlink": "downlink.state"}
