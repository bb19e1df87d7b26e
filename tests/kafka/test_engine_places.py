"""What the engine on Kafka says of topics that are not as they must be, and of bad records."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.errors import UsageError
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream.kafka import KafkaEngine
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import partition_of
from tests.contract.engine_harness import FunctionStage, copy, record, tally, values
from tests.contract.kafka_harness import KafkaHarness, read_all

# More than brokers take by default; noise, so that it is as large when it is compressed.
LARGE = random.Random(1).randbytes(3_000_000)


class Harness(KafkaHarness):
    """Four partitions a topic."""

    partitions = 4


@pytest.fixture
def harness(tmp_path: Path, kafka: object) -> Iterator[Harness]:
    """An engine of the test's own."""
    found = Harness(tmp_path)
    yield found
    found.stop()


def test_a_missing_topic_is_named(harness: Harness) -> None:
    """A stage whose topic is not there does not start, and the words say what to do."""
    harness.make("in", "dead.letter")
    engine = KafkaEngine(harness.kafka, [FunctionStage(tally)], state_folder=harness.folder)
    with pytest.raises(UsageError, match=r"stage\.state.*funicular topics create"):
        engine.start()
    assert not engine.running


def test_other_partitions_are_refused(harness: Harness) -> None:
    """Topics that must have the same number of partitions and have not stop the start."""
    harness.make("in", "dead.letter")
    topic = harness.kafka.topic("stage.state")
    harness.cluster.create({topic: 3}, cleanup_policy="compact")
    engine = KafkaEngine(harness.kafka, [FunctionStage(tally)], state_folder=harness.folder)
    with pytest.raises(UsageError, match=r"has 4 partitions and .* has 3"):
        engine.start()


def test_a_changelog_must_be_compacted(harness: Harness) -> None:
    """A changelog that would forget state by its age is refused."""
    harness.make("in", "dead.letter", "stage.state")
    engine = KafkaEngine(harness.kafka, [FunctionStage(tally)], state_folder=harness.folder)
    with pytest.raises(UsageError, match=r"cleanup\.policy is delete"):
        engine.start()


def test_topics_by_device_agree(harness: Harness) -> None:
    """One topic by device that has other partitions than the rest stops every such stage."""
    harness.make("device.events", "dead.letter")
    harness.cluster.create({harness.kafka.topic("downlink.requested"): 2})
    stage = FunctionStage(copy, topic="device.events")
    stage.state_topic = None
    engine = KafkaEngine(harness.kafka, [stage], state_folder=harness.folder)
    with pytest.raises(UsageError, match=r"device\.events has 4.*downlink\.requested has 2"):
        engine.start()


def test_no_cluster_is_said(tmp_path: Path) -> None:
    """Where nothing answers the start says so in time, with the address."""
    kafka = KafkaSettings(bootstrap="127.0.0.1:9")
    settings = KafkaEngineSettings(call_timeout_s=1.0)
    engine = KafkaEngine(kafka, [FunctionStage(copy)], settings, state_folder=tmp_path)
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9 does not answer"):
        engine.start()


def test_a_slot_is_held_by_one(harness: Harness) -> None:
    """A second worker cannot take a slot that another holds; without a slot it takes the next."""
    harness.start([FunctionStage(tally)], slot=0)
    for slot, holds in ((0, False), (None, True)):
        settings = KafkaEngineSettings(slot=slot)
        stages = [FunctionStage(tally)]
        engine = KafkaEngine(harness.kafka, stages, settings, state_folder=harness.folder)
        if holds:
            engine.start()
            assert engine.stop()
        else:
            with pytest.raises(UsageError, match="holds slot 0"):
                engine.start()


def test_a_record_on_a_wrong_partition(harness: Harness) -> None:
    """Of a topic by device what another partitioner misplaced becomes a dead letter, unhandled."""
    stage = FunctionStage(copy, topic="device.events")
    stage.state_topic = None
    harness.start([stage])
    right = [record(f"t/d{number}", f"v{number}", "device.events") for number in range(20)]
    wrong = [
        Outgoing("device.events", f"t/d{number}", b"misplaced", {"id": f"w{number}"},
                 (partition_of(f"t/d{number}", 4) + 1) % 4)
        for number in range(5)
    ]  # fmt: skip
    harness.append([*right, *wrong])
    harness.run()
    assert sorted(values(harness.records("out"))) == sorted(f"v{n}" for n in range(20))
    letters = [json.loads(message.value()) for message in read_all(harness.kafka, "dead.letter")]
    assert [letter["reason"] for letter in letters] == ["wrong_partition"] * 5
    assert sorted(letter["key"] for letter in letters) == [f"t/d{n}" for n in range(5)]
    assert "murmur2" in letters[0]["message"]


def test_a_foreign_record_is_handled(harness: Harness) -> None:
    """A record without key, with bytes that are no text in its headers, reaches its stage."""
    stage = FunctionStage(copy)
    harness.start([stage])
    producer = Producer(harness.kafka.confluent())
    producer.produce(harness.kafka.topic("in"), b"\xff", headers=[("a", b"\xff\xfe"), ("b", None)])
    producer.flush()
    harness.run()
    (found,) = [each for batch in stage.batches for each in batch.records]
    assert (found.key, found.value) == ("", b"\xff")
    assert found.headers == {"a": "\ufffd\ufffd", "b": ""}


@pytest.mark.parametrize("ours_bytes", [8_000_000, 1_000_000])
def test_an_output_that_is_too_large(harness: Harness, ours_bytes: int) -> None:
    """What comes of one record and is larger than the brokers take, or than our own limit: that
    record becomes a dead letter, and all others, before and after it, are handled once.
    """
    harness.kafka = replace(harness.kafka, record_bytes_max=ours_bytes)

    def inflate(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        out = []
        for found in batch.records:
            large = found.value in {b"large", b"huge"}
            state.put(found.key, "count", (state.get(found.key, "count") or 0) + 1)
            out.append(Outgoing("out", found.key, LARGE if large else found.value, {}))
        return out

    harness.start([FunctionStage(inflate)])
    texts = ["a", "b", "large", "c", "d"]
    harness.append([record("k", text) for text in texts])
    harness.run()
    assert values(harness.records("out")) == ["a", "b", "c", "d"]
    assert harness.state("stage") == {"k": {"count": 4}}
    (letter,) = [json.loads(message.value()) for message in read_all(harness.kafka, "dead.letter")]
    assert (letter["reason"], letter["offset"], letter["key"]) == ("record_too_large", 2, "k")


def test_what_a_worker_counts(harness: Harness) -> None:
    """Metrics say by partition what went in and out, and the transactions that carried it."""
    metrics = Registry()
    stage = FunctionStage(tally)
    harness.make("in", "out", "dead.letter", compacted=["stage.state"])
    settings = KafkaEngineSettings(poll_s=0.02, lag_every_s=0.01)
    harness.engine = KafkaEngine(
        harness.kafka, [stage], settings, metrics, state_folder=harness.folder, clock=harness.clock
    )
    harness.engine.start()
    harness.append([record(f"k{number}", "v") for number in range(40)])
    harness.run()
    for name in ("funicular_stage_records_total", "funicular_stage_outputs_total"):
        series = metrics.values(name)
        assert sum(series.values()) == 40
        assert {dict(labels)["partition"] for labels in series} == {"0", "1", "2", "3"}
    committed = metrics.values("funicular_transactions_total")
    assert [dict(labels)["result"] for labels in committed] == ["committed"]
    assert metrics.values("funicular_partitions")[("stage", "stage"),] == 4
    assert sum(metrics.values("funicular_lag_records").values()) == 0
    assert "funicular_restore_seconds{" in metrics.text()
