"""The engine on Kafka while brokers stand still, die and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.brokers import Brokers
from tests.kafka.cluster_work import Flow, wait_for


@pytest.fixture
def own_flow(own_kafka: Brokers, prefix: str, tmp_path: Path) -> Iterator[Flow]:
    """A flow on a broker that the test may harm."""
    if not own_kafka.nodes:
        pytest.skip("a cluster that was not started here is not harmed")
    found = Flow(own_kafka, prefix, tmp_path / "state")
    yield found
    found.stop()


@pytest.fixture
def wide_flow(three_brokers: Brokers, prefix: str, tmp_path: Path) -> Iterator[Flow]:
    """A flow on three brokers."""
    if not three_brokers.nodes:
        pytest.skip("a cluster that was not started here is not harmed")
    found = Flow(three_brokers, prefix, tmp_path / "state")
    yield found
    found.stop()


def coordinator(cluster: Brokers, topic: str) -> int:
    """Return the node that leads the most partitions of an internal topic."""
    partitions = cluster.admin().list_topics(topic, timeout=10).topics[topic].partitions
    leaders = [each.leader for each in partitions.values()]
    return max(set(leaders), key=leaders.count)


@pytest.mark.timeout(180)
def test_the_coordinator_stands_still_at_commit_time(own_flow: Flow) -> None:
    """SIGSTOP of the broker under running transactions, for less and for more than their timeout:
    what was in doubt is found out, and is there once.
    """
    own_flow.worker(records_max=20)
    for seconds in (3, 8):
        own_flow.append(1_000)
        wait_for(lambda: own_flow.left() < 900)
        own_flow.brokers.pause(1)
        time.sleep(seconds)
        own_flow.brokers.resume(1)
    own_flow.append(100)
    own_flow.wait_done()
    own_flow.check()


@pytest.mark.timeout(180)
def test_the_only_broker_dies_and_comes_back(own_flow: Flow) -> None:
    """A worker outlives its whole cluster: after SIGKILL and a restart it goes on by itself."""
    worker = own_flow.worker(records_max=20)
    own_flow.append(1_000)
    wait_for(lambda: own_flow.left() < 900)
    own_flow.brokers.kill(1)
    time.sleep(2)
    own_flow.brokers.restart(1)
    own_flow.append(100)
    own_flow.wait_done()
    assert worker.poll() is None
    own_flow.check()
    own_flow.brokers.kill(1)
    time.sleep(0.5)
    worker.terminate()
    assert worker.wait(15) == 0, "a worker can be stopped while its cluster is away"
    own_flow.brokers.restart(1)


@pytest.mark.timeout(240)
def test_coordinators_die(wide_flow: Flow) -> None:
    """SIGKILL of the broker that coordinates groups, then of the one that coordinates
    transactions: others take over, nothing is lost or done twice.
    """
    wide_flow.worker(records_max=20)
    wide_flow.worker(slot=1, records_max=20)
    for topic in ("__consumer_offsets", "__transaction_state"):
        wide_flow.append(1_000)
        wait_for(lambda: wide_flow.left() < 900)
        node = coordinator(wide_flow.brokers, topic)
        wide_flow.brokers.kill(node)
        wide_flow.append(100)
        wait_for(lambda: wide_flow.left() == 0)
        wide_flow.brokers.restart(node)
    wide_flow.append(100)
    wide_flow.wait_done()
    wide_flow.check()
