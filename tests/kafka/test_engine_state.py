"""State and timers on Kafka move with their partition, and are made again where they must be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream.kafka import KafkaEngine
from pipeline.stream.kafka_changes import changes_of
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_store import PartitionStore
from tests.contract.clock import START_MS
from tests.contract.engine_harness import FunctionStage, record, tally, values
from tests.contract.kafka_harness import DRAIN_S, KafkaHarness
from tests.kafka.cluster_work import wait_for

HOUR_MS = 3_600_000


class Harness(KafkaHarness):
    """Two partitions a topic, and a state folder that can change: another machine."""

    partitions = 2

    def move(self, name: str) -> None:
        """Go on as another machine would."""
        self.stop()
        self.folder = self.folder.parent / name

    def stores(self) -> dict[int, PartitionStore]:
        """Open the stores of the stage; the engine must be stopped."""
        return {n: PartitionStore(self.stores_folder(n), 1 << 20) for n in range(2)}

    def stores_folder(self, number: int) -> Path:
        """Return where a partition's store is."""
        return self.folder / self.kafka.group("stage") / "slot-0" / str(number)


@pytest.fixture
def harness(tmp_path: Path, kafka: object) -> Iterator[Harness]:
    """An engine of the test's own."""
    found = Harness(tmp_path)
    yield found
    found.stop()


def test_state_and_timers_move_to_another_worker(harness: Harness) -> None:
    """A worker elsewhere goes on with state, timers and time as the first one left them."""
    harness.start([FunctionStage(tally)])
    keys = [f"t/d{number}#{number}" for number in range(10)]
    harness.append([record(key, "timer 50") for key in keys])
    harness.clock.now_ms = START_MS + 10
    harness.run()
    harness.move("elsewhere")
    harness.clock.now_ms = START_MS + 20
    stage = FunctionStage(tally)
    harness.start([stage])
    harness.append([record(key, "more") for key in keys])
    harness.run()
    assert harness.state("stage") == {key: {"count": 2, "last": ["timer 50", "more"]}
                                      for key in keys}  # fmt: skip
    before = len(values(harness.records("out")))
    harness.clock.now_ms = START_MS + 60
    harness.run()
    fired = [timer.key for batch in stage.batches for timer in batch.timers]
    assert sorted(fired) == sorted(keys)
    assert len(values(harness.records("out"))) == before + len(keys)
    assert harness.timers("stage") == []


def test_timers_fire_once_when_a_worker_takes_over(harness: Harness) -> None:
    """A timer that came due between two workers fires at the second, once, and not at the first
    when that one comes back with what it had.
    """
    harness.start([FunctionStage(tally)])
    harness.append([record("k", "timer 50")])
    harness.run()
    first = harness.folder
    harness.move("elsewhere")
    harness.clock.now_ms = START_MS + 100
    harness.start([FunctionStage(tally)])
    harness.run()
    harness.stop()
    harness.folder = first
    back = FunctionStage(tally)
    harness.start([back])
    harness.append([record("k", "later")])
    harness.run()
    assert [batch.timers for batch in back.batches] == [[]]
    fired = [text for text in values(harness.records("out")) if text.startswith("fired")]
    assert fired == ["fired timer 50 {'offset': 0}"]


def test_a_store_is_what_the_changelog_says(harness: Harness) -> None:
    """After any batches the local stores hold exactly what the changelog's replay gives."""
    harness.start([FunctionStage(tally)], records_max=3)
    texts = ["a", "b", "delete", "c", "timer 9", "d"]
    harness.append([record(f"k{number % 5}", texts[number % 6]) for number in range(60)])
    harness.run()
    harness.stop()
    found: dict[str, dict[str, object]] = {}
    for store in harness.stores().values():
        for key, part, value in store.parts():
            found.setdefault(key, {})[part] = value
        store.close()
    assert found == harness.state("stage")


@pytest.mark.parametrize("later_ms", [1 * HOUR_MS, 13 * HOUR_MS])
def test_a_store_older_than_deletions_are_kept(harness: Harness, later_ms: int) -> None:
    """What a store has and the changelog has not is kept by a store that is young enough to have
    seen every deletion, and gone from one that is too old to.
    """
    harness.start([FunctionStage(tally)])
    harness.append([record("k", "a")])
    harness.run()
    harness.stop()
    number = next(n for n, store in _closed(harness.stores()).items() if store.checkpoint.next)
    folder = harness.stores_folder(number)
    store = PartitionStore(folder, 1 << 20)
    at = store.checkpoint
    # As if the deletion of this key had come and been forgotten since.
    ghost = changes_of({("ghost", "count"): 1}, {})
    store.apply(ghost, at.next, START_MS, at.topic_id)
    store.close()
    harness.clock.now_ms = START_MS + later_ms
    harness.start([FunctionStage(tally)])
    harness.run()
    harness.stop()
    store = PartitionStore(folder, 1 << 20)
    assert ("ghost" in {key for key, _, _ in store.parts()}) == (later_ms == HOUR_MS)
    assert store.load("k") == {"count": 1, "last": ["a"]}
    store.close()


def test_a_changelog_made_anew(harness: Harness) -> None:
    """A store of a changelog that was deleted and made again is not taken for the new one's."""
    harness.start([FunctionStage(tally)])
    harness.append([record("k", "a"), record("k", "b")])
    harness.run()
    harness.stop()
    topic = harness.kafka.topic("stage.state")
    admin = harness.cluster.admin()
    for deleted in admin.delete_topics([topic]).values():
        deleted.result(30)
    harness.cluster.create({topic: 2}, cleanup_policy="compact", retention_ms="-1")
    harness.start([FunctionStage(tally)])
    harness.append([record("k", "c")])
    harness.run()
    assert harness.state("stage") == {"k": {"count": 1, "last": ["c"]}}


def test_a_worker_that_joins_and_leaves(harness: Harness) -> None:
    """While partitions go to and fro every record is counted once, with the state it must have."""
    harness.start([FunctionStage(tally)])
    keys = [f"k{number}" for number in range(20)]
    for turn in range(3):
        other = KafkaEngine(
            harness.kafka,
            [FunctionStage(tally)],
            KafkaEngineSettings(poll_s=0.02),
            state_folder=harness.folder.parent / f"other-{turn % 2}",
            clock=harness.clock,
        )
        other.start()
        harness.append([record(key, f"{turn}a") for key in keys])
        assert other.drain(DRAIN_S)
        assert other.stop(DRAIN_S)
        harness.append([record(key, f"{turn}b") for key in keys])
    wait_for(lambda: harness.lag() == 0)
    assert {key: parts["count"] for key, parts in harness.state("stage").items()} == (
        dict.fromkeys(keys, 6)
    )
    by_key: dict[str, list[str]] = {}
    for out in harness.records("out"):
        by_key.setdefault(out.key, []).append((out.value or b"").decode())
    expected = [f"{n} {text}" for n, text in enumerate(["0a", "0b", "1a", "1b", "2a", "2b"], 1)]
    assert by_key == dict.fromkeys(keys, expected)


def test_a_batch_that_takes_too_long(harness: Harness) -> None:
    """A stage that is busy for longer than the group waits loses its partitions; what it made of
    them meanwhile is not committed, and comes once when it has them again.
    """
    slept = []

    def slow(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        if not slept:
            slept.append(True)
            time.sleep(4)
        return tally(batch, state, now_ms)

    harness.start([FunctionStage(slow)], session_timeout_s=1.0, poll_interval_max_s=1.5)
    harness.append([record("k", "a"), record("k", "b")])
    wait_for(lambda: harness.lag() == 0)
    assert values(harness.records("out")) == ["1 a", "2 b"]
    assert harness.state("stage") == {"k": {"count": 2, "last": ["a", "b"]}}


def test_a_stage_that_says_no_state_topic_keeps_none(harness: Harness) -> None:
    """State without a changelog would be lost with the worker: it is refused as a bug."""
    stage = FunctionStage(tally)
    stage.state_topic = None
    harness.start([stage])
    harness.append([record("k", "a")])
    with pytest.raises(TypeError, match="says no state_topic"):
        harness.run()


def _closed(stores: dict[int, PartitionStore]) -> dict[int, PartitionStore]:
    for store in stores.values():
        store.close()
    return stores


def test_a_worker_with_older_rules_waits(harness: Harness) -> None:
    """Partitions that newer rules have written wait at a worker that has older ones, records and
    timers alike, until it has them too; nothing is lost by that.
    """
    place = [7]
    harness.start([FunctionStage(tally)], rules=lambda: place[0])
    keys = [f"t/d{number}#{number}" for number in range(10)]
    harness.append([record(key, "timer 50") for key in keys])
    harness.run()
    harness.move("elsewhere")
    place[0] = 6
    before = Counter(values(harness.records("out")))
    harness.clock.now_ms = START_MS + 100
    harness.append([record(key, "more") for key in keys])
    harness.start([FunctionStage(tally)], rules=lambda: place[0])
    assert harness.engine is not None
    assert not harness.engine.drain(4.0)
    assert Counter(values(harness.records("out"))) == before

    place[0] = 7
    harness.run()
    made = Counter(values(harness.records("out"))) - before
    assert sum(times for text, times in made.items() if "fired" in text) == len(keys)
    assert made.total() == 2 * len(keys)


def test_an_answer_to_nowhere_is_a_dead_letter(harness: Harness) -> None:
    """An answer to a partition that there is none of does not hold up its batch: it is a dead
    letter, and all else goes through.
    """

    def answer(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        return [
            Outgoing("reply", "door", found.value, {}, int(found.value or b""))
            for found in batch.records
        ]

    harness.make("reply")
    stage = FunctionStage(answer)
    stage.state_topic = None
    harness.start([stage])
    harness.append([record(f"k#{n}", text) for n, text in enumerate(("1", "999", "-3", "0"))])
    harness.run()
    assert sorted(values(harness.records("reply"))) == ["0", "1"]
    letters = [orjson.loads(each.value or b"") for each in harness.records("dead.letter")]
    assert sorted(letter["message"] for letter in letters) == [
        "`reply_to` names partition -3 of 2",
        "`reply_to` names partition 999 of 2",
    ]
    assert {letter["reason"] for letter in letters} == {"no_partition"}
