"""A cluster only looked at: records, by key and by time, and what changelogs say."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.stream.kafka_view import KafkaView
from tests.contract.engine_harness import FunctionStage, record, tally
from tests.contract.kafka_harness import KafkaHarness

KEYS = [f"t/dev #{number} %" for number in range(12)]


class SpreadHarness(KafkaHarness):
    """Several partitions, so that a key's own one has to be found."""

    partitions = 3


@pytest.fixture
def lived(tmp_path: Path) -> SpreadHarness:
    """A cluster on which each key was counted twice, the second time a minute later."""
    harness = SpreadHarness(tmp_path)
    harness.start([FunctionStage(tally)])
    harness.append([record(key, "a") for key in KEYS])
    harness.clock.now_ms += 60_000
    harness.append([record(key, "timer 500") for key in KEYS])
    harness.run()
    harness.stop()
    return harness


def test_view(lived: SpreadHarness) -> None:
    """Records come whole, of a key in their order, from a time on; state and timers are those of
    the changelog; a topic that is not there is the user's mistake.
    """
    begun = time.monotonic()
    view = KafkaView(lived.kafka, {"stage": "stage.state"})
    every = list(view.records("in"))
    mine = list(view.records("in", key=KEYS[5]))
    later = list(view.records("in", since_ms=lived.clock.now_ms))

    assert sorted((each.partition, each.offset) for each in every) == sorted(
        (each.partition, each.offset) for each in lived.records("in")
    )
    assert [(each.key, each.value) for each in mine] == [
        (KEYS[5], b"a"),
        (KEYS[5], b"timer 500"),
    ]
    assert len(later) == len(KEYS)
    assert view.is_whole("in", KEYS[5])
    assert view.state("stage", KEYS[5]) == {KEYS[5]: lived.state("stage")[KEYS[5]]}
    assert view.state("stage") == lived.state("stage")
    assert view.timers("stage") == lived.timers("stage")
    with pytest.raises(UsageError, match="has no topic"):
        list(view.records("nowhere"))
    view.close()
    assert time.monotonic() - begun < 20
