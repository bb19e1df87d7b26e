"""The engine on Kafka under faults of its workers: killed, stopped, robbed of their state."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.brokers import Brokers
from tests.kafka.cluster_work import Flow, wait_for


@pytest.fixture
def flow(kafka: Brokers, prefix: str, tmp_path: Path) -> Iterator[Flow]:
    """Topics, input and workers of one test."""
    found = Flow(kafka, prefix, tmp_path / "state")
    yield found
    found.stop()


def stopped(pid: int) -> bool:
    """Tell whether a process stands still by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


@pytest.mark.parametrize("at", ["produce", "offsets", "commit", "committing", "committed"])
def test_a_worker_killed_in_a_transaction(flow: Flow, at: str) -> None:
    """SIGKILL at any moment of a transaction loses nothing and has nothing done twice."""
    flow.append(600)
    after = 150 if at == "produce" else 2
    worker = flow.worker(at=at, after=after)
    assert worker.wait(30) == -signal.SIGKILL
    flow.append(100)
    flow.worker()
    flow.wait_done()
    flow.check()


@pytest.mark.parametrize("at", ["handle", "offsets", "commit"])
def test_a_zombie_cannot_commit(flow: Flow, at: str) -> None:
    """A worker that stood still past its session, with a batch handled, a transaction open or its
    offsets in it, commits nothing of that; then it takes its part again.
    """
    flow.append(600)
    zombie = flow.worker(at=at, after=2, how="stop")
    wait_for(lambda: stopped(zombie.pid))
    flow.worker(slot=1)
    flow.wait_done()
    zombie.send_signal(signal.SIGCONT)
    flow.append(400)
    flow.wait_done()
    assert zombie.poll() is None
    flow.check()


def test_workers_share_partitions(flow: Flow) -> None:
    """Two workers each have a part; one that leaves gives its part to the other."""
    first = flow.worker()
    second = flow.worker(slot=1)
    for _ in range(6):
        flow.append(200)
        time.sleep(0.2)
    wait_for(lambda: flow.left() == 0)
    folder = flow.folder / flow.kafka.group("count")
    shares = [list((folder / f"slot-{slot}").iterdir()) for slot in (0, 1)]
    assert all(len(share) > 1 for share in shares), "each has a lock and a store at least"
    first.terminate()
    assert first.wait(20) == 0
    flow.append(300)
    flow.wait_done()
    second.terminate()
    assert second.wait(20) == 0
    flow.check()


def _delete(folder: Path) -> None:
    shutil.rmtree(folder)


def _truncate(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith("MANIFEST") or path.suffix in {".sst", ".log"}:
            os.truncate(path, path.stat().st_size // 2)


def _corrupt(folder: Path) -> None:
    noise = random.Random(1)  # the same each time
    for path in folder.iterdir():
        if path.suffix in {".sst", ".log"} or path.name == "CURRENT":
            path.write_bytes(noise.randbytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [_delete, _truncate, _corrupt])
def test_a_harmed_state_store_is_made_again(flow: Flow, harm: object) -> None:
    """A store that was deleted, cut short or overwritten comes again from the changelog."""
    flow.append(500)
    worker = flow.worker()
    flow.wait_done()
    worker.terminate()
    assert worker.wait(20) == 0
    slot = flow.folder / flow.kafka.group("count") / "slot-0"
    stores = [path for path in slot.iterdir() if path.is_dir()]
    assert len(stores) == flow.partitions
    for store in stores:
        harm(store)  # type: ignore[operator]
    flow.worker()
    flow.append(300)
    flow.wait_done()
    flow.check()
