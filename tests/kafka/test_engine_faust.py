"""The Faust engine where something breaks: what is kept, and what is not promised."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.errors import UsageError
from pipeline.stream.faust import FaustEngine, FaustSettings
from pipeline.stream.faust_restore import restore
from pipeline.stream.faust_state import CLOCK
from pipeline.stream.kafka_changes import Change, part_key, replay, timer_key
from pipeline.stream.kafka_records import header_texts, key_text
from pipeline.stream.kafka_settings import KafkaSettings
from tests.contract.engine_harness import FunctionStage, copy
from tests.contract.kafka_harness import read_all
from tests.kafka.brokers import ROOT, Brokers
from tests.kafka.cluster_work import WAIT_S, Flow, wait_for

GROUP = "count"


class FaustFlow(Flow):
    """Topics and input of the stages `count` and `copy`, and Faust workers as processes."""

    def __init__(self, brokers: Brokers, prefix: str, folder: Path) -> None:
        super().__init__(brokers, prefix, folder)
        brokers.create({prefix + "out": self.partitions})

    def worker(self, *, commit_s: float = 0.5) -> subprocess.Popen[str]:
        """Start `faust worker`."""
        command = [sys.executable, "-m", "faust", "-A", "tests.kafka.faust_program:app", "worker"]
        env = os.environ | {
            "FAUST_TEST_LOG": f"faust://{self.kafka.bootstrap}?prefix={self.kafka.prefix}",
            "FUNICULAR_FAUST_APP_ID": GROUP,
            "FUNICULAR_FAUST_COMMIT_S": str(commit_s),
            # A killed worker's partitions are taken over this soon.
            "FUNICULAR_KAFKA_SESSION_TIMEOUT_S": "3",
            "FUNICULAR_KAFKA_HEARTBEAT_S": "0.5",
        }
        path = self.folder.parent / f"worker-{len(self.workers)}.log"
        with path.open("w") as log:
            worker = subprocess.Popen(
                [*command, "-l", "info"], cwd=ROOT, env=env, stdout=log, stderr=log, text=True
            )
        self.workers.append(worker)
        wait_for(lambda: "Worker ready" in path.read_text())
        return worker

    def counted(self) -> dict[str, list[tuple[str, int]]]:
        """Return what came out, by key: value and number, in order."""
        found: dict[str, list[tuple[str, int]]] = {}
        for message in read_all(self.kafka, "counted"):
            number = int(header_texts(message.headers())["number"])
            value = message.value().decode()
            found.setdefault(key_text(message.key()), []).append((value, number))
        return found

    def replayed(self) -> tuple[dict[str, dict[str, int]], list[object]]:
        found = (Change(each.key(), each.value()) for each in read_all(self.kafka, "count.state"))
        state, timers = replay(change for change in found if change.key != CLOCK)
        return state, list(timers)

    def changelogged(self) -> int:
        """Return how many records the changelog says to be done."""
        following = {
            message.partition(): json.loads(message.value())[1]
            for message in read_all(self.kafka, "count.state")
            if message.key() == CLOCK
        }
        return sum(following.values())

    def check_at_least_once(self) -> int:
        """Each record had its effect, in order of its first time, its timer fired, and the state
        is what the last output says; return how many were repeated.
        """
        found = self.counted()
        state, timers = self.replayed()
        for key, values in self.sent.items():
            assert list(dict.fromkeys(value for value, _ in found[key])) == values
            assert state[key]["count"] == found[key][-1][1]
        assert timers == []
        fired = {message.value().decode() for message in read_all(self.kafka, "fired")}
        assert fired == {value for values in self.sent.values() for value in values}
        return sum(map(len, found.values())) - sum(map(len, self.sent.values()))


@pytest.fixture
def flow(kafka: Brokers, prefix: str, tmp_path: Path) -> Iterator[FaustFlow]:
    """Topics, input and workers of one test."""
    found = FaustFlow(kafka, prefix, tmp_path / "state")
    yield found
    found.stop()


def test_a_killed_worker_repeats_what_no_changelog_has(flow: FaustFlow) -> None:
    """SIGKILL before any offset is committed: the stage with state goes on where its changelog
    stands and does nothing again; the one without does all of it again, which is at least once.
    """
    first = flow.worker(commit_s=3_600)
    flow.append(300)
    wait_for(lambda: flow.changelogged() == 300)
    wait_for(lambda: len(read_all(flow.kafka, "out")) == 300)
    first.kill()
    flow.append(100)
    flow.worker()
    flow.wait_done()
    wait_for(lambda: len(read_all(flow.kafka, "out")) >= 700)

    assert flow.check_at_least_once() == 0
    state, _ = flow.replayed()
    assert sum(parts["count"] for parts in state.values()) == 400


def test_workers_killed_again_and_again_lose_nothing(flow: FaustFlow) -> None:
    """Whenever a worker dies, another one goes on from its committed offsets and its table."""
    for _ in range(3):
        worker = flow.worker(commit_s=0.05)
        before = sum(map(len, flow.counted().values()))
        flow.append(400)
        wait_for(lambda before=before: sum(map(len, flow.counted().values())) > before)
        worker.kill()
    flow.worker()
    flow.wait_done()
    wait_for(lambda: not flow.replayed()[1])

    flow.check_at_least_once()


def test_a_worker_that_is_told_to_stop_repeats_nothing(flow: FaustFlow) -> None:
    """SIGTERM in the midst of work: the batch under way is finished and committed."""
    worker = flow.worker(commit_s=3_600)
    flow.append(3_000)
    wait_for(lambda: sum(map(len, flow.counted().values())) > 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WAIT_S) == 0
    flow.worker()
    flow.wait_done()

    assert flow.check_at_least_once() == 0


def test_workers_share_partitions_and_hand_them_over(flow: FaustFlow) -> None:
    """A worker that comes takes its part, with the state; one that goes gives its part back."""
    flow.worker()
    flow.append(1_000)
    second = flow.worker()
    log = (flow.folder.parent / "worker-1.log").read_text()
    assert f"{flow.kafka.prefix}in " in log.partition("newly assigned")[2]
    flow.append(1_000)
    flow.wait_done()
    second.send_signal(signal.SIGTERM)
    assert second.wait(WAIT_S) == 0
    flow.append(200)
    flow.wait_done()

    assert flow.check_at_least_once() == 0


def engine(kafka: Brokers, prefix: str) -> FaustEngine:
    """Return an engine of one stage, `in` to `out`."""
    settings = FaustSettings(kafka=KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix))
    return FaustEngine([FunctionStage(copy)], settings)


@pytest.mark.parametrize(
    ("topics", "says"),
    [
        ({"in": 2}, "has no topic .*stage.state; `funicular topics create`"),
        ({"in": 2, "stage.state": 3}, "stage.state has 3 partitions and .*in 2"),
    ],
)
def test_topics_that_do_not_fit_stop_the_engine(
    kafka: Brokers, prefix: str, topics: dict[str, int], says: str
) -> None:
    """A topic that is missing, or a changelog with other partitions, is said at the start."""
    kafka.create({prefix + name: count for name, count in topics.items()})
    found = engine(kafka, prefix)
    found.start()

    with pytest.raises(UsageError, match=says):
        found.failed.result(WAIT_S)
    assert not found.running
    assert found.stop()


def write_changelog(kafka: Brokers, topic: str, *, commit: bool, changes: list[Change]) -> None:
    """Write to a changelog in one transaction, as the Kafka engine does."""
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "log_level": 0}
    )
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    for key, value in changes:
        producer.produce(topic, value, key, partition=0)
    if commit:
        producer.commit_transaction(WAIT_S)
    else:
        producer.flush(WAIT_S)
        producer.abort_transaction(WAIT_S)


def test_a_restore_reads_to_the_end_and_no_more(kafka: Brokers, prefix: str) -> None:
    """What was committed is restored, deletions too; what was aborted is not; a transaction's
    marker at the end is nothing to wait for, neither here nor when the app starts.
    """
    topic = prefix + "stage.state"
    kafka.create({prefix + "in": 1, prefix + "out": 1, topic: 1})
    written = [Change(part_key("k", f"p{number}"), b"1") for number in range(3_000)]
    gone = Change(part_key("k", "p7"), None)
    timer = Change(timer_key("k", "t"), b"[5,null]")
    write_changelog(kafka, topic, commit=True, changes=[*written, gone, timer])
    write_changelog(kafka, topic, commit=False, changes=[Change(part_key("k", "no"), b"1")])
    found = asyncio.run(restore(KafkaSettings(bootstrap=kafka.bootstrap), topic, [0], WAIT_S))

    state, end = found[0]
    assert end == len(written) + 2 + 1 + 1 + 1
    assert state.load("k") == {f"p{number}": 1 for number in range(3_000) if number != 7}
    assert [each.name for each in state.due(5, 10)] == ["t"]
    app = engine(kafka, prefix)
    app.start()
    wait_for(lambda: app.running)
    assert app.stop()


def test_a_foreign_changelog_is_refused(kafka: Brokers, prefix: str) -> None:
    """A worker does not begin to work on a state that it cannot read."""
    topic = prefix + "stage.state"
    kafka.create({prefix + "in": 1, prefix + "out": 1, topic: 1})
    write_changelog(kafka, topic, commit=True, changes=[Change(b"foreign", b"1")])
    app = engine(kafka, prefix)
    app.start()

    with pytest.raises(ValueError, match="no key of a changelog"):
        app.failed.result(WAIT_S)
    assert app.stop()


def test_no_broker_is_said() -> None:
    """An address where nothing listens ends the engine with what to look at."""
    settings = FaustSettings(kafka=KafkaSettings(bootstrap="127.0.0.1:1"))
    found = FaustEngine([FunctionStage(copy)], settings)
    found.start()

    with pytest.raises(UsageError, match=r"No Kafka broker answers at 127\.0\.0\.1:1"):
        found.failed.result(WAIT_S)
    assert found.stop()


def test_an_engine_that_never_started_stops(kafka: Brokers, prefix: str) -> None:
    """What is built and not run leaves nothing behind."""
    assert engine(kafka, prefix).stop()
