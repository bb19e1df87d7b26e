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

MOMENTS = ("handle", "produce", "offsets", "commit", "flushed", "committing", "committed")


@pytest.fixture
def flow(kafka: Brokers, prefix: str, tmp_path: Path) -> Iterator[Flow]:
    """Topics, input and workers of one test."""
    found = Flow(kafka, prefix, tmp_path / "state")
    yield found
    found.stop()


def stopped(pid: int) -> bool:
    """Tell whether a process stands still by SIGSTOP."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


def test_workers_killed_in_transactions(flow: Flow) -> None:
    """SIGKILL at any moment of a transaction loses nothing and has nothing done twice."""
    for at in MOMENTS:
        flow.append(300)
        worker = flow.worker(at=at, after=150 if at == "produce" else 2)
        assert worker.wait(30) == -signal.SIGKILL
    flow.append(100)
    flow.worker()
    flow.wait_done()
    flow.check()


@pytest.mark.timeout(180)
def test_zombies_cannot_commit(flow: Flow) -> None:
    """Workers that stood still past their session, with a batch handled, a transaction open or
    their offsets in it, commit nothing of that; then they take their parts again.
    """
    zombies = []
    for slot, at in enumerate(("handle", "offsets", "flushed")):
        flow.append(400)
        zombies.append(flow.worker(at=at, after=2, how="stop", slot=slot))
        wait_for(lambda: stopped(zombies[-1].pid))
    flow.worker(slot=3)
    flow.wait_done()
    for zombie in zombies:
        zombie.send_signal(signal.SIGCONT)
    flow.append(400)
    flow.wait_done()
    assert [zombie.poll() for zombie in zombies] == [None] * 3
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


def test_harmed_state_stores_are_made_again(flow: Flow) -> None:
    """Stores that were deleted, cut short or overwritten come again from the changelog."""
    flow.append(500)
    worker = flow.worker()
    flow.wait_done()
    worker.terminate()
    assert worker.wait(20) == 0
    slot = flow.folder / flow.kafka.group("count") / "slot-0"
    stores = sorted(path for path in slot.iterdir() if path.is_dir())
    assert len(stores) == flow.partitions
    for store, harm in zip(stores, (_delete, _truncate, _corrupt), strict=False):
        harm(store)
    flow.worker()
    flow.append(300)
    flow.wait_done()
    flow.check()
