"""A store whose worker was killed, and whose files were then cut, overwritten or lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.stream.kafka_store import PartitionStore, StoreError
from tests.unit.stream.store_writer import BUFFER_BYTES, FLUSH_MS, state_at

ROOT = Path(__file__).parents[3]
DATA = ("*.sst", "*.log", "MANIFEST*")


def write(folder: Path, count: int, seed: int) -> None:
    """Have a process write that many times, and be killed at once."""
    command = [sys.executable, "-m", "tests.unit.stream.store_writer", str(folder), str(count)]
    ended = subprocess.run([*command, str(seed)], cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL


def read(folder: Path, seed: int) -> int:
    """Open it; return its checkpoint, having seen that its state is that of its checkpoint, or -1
    where it says that it is broken.
    """
    store = PartitionStore(folder, BUFFER_BYTES, FLUSH_MS)
    wanted = state_at(store.checkpoint.next, seed)
    try:
        found = {key: store.load(key) for key in wanted}
    except StoreError:
        store.clear()
        assert store.load("k1") == {}
        return -1
    finally:
        store.close()
    assert found == wanted
    return store.checkpoint.next


def cut_all(folder: Path, _chance: random.Random) -> None:
    for file in _files(folder):
        os.truncate(file, file.stat().st_size // 2)


def overwrite_all(folder: Path, _chance: random.Random) -> None:
    for file in _files(folder):
        _overwrite(file, file.stat().st_size // 3)


def cut_one(folder: Path, chance: random.Random) -> None:
    file = chance.choice(_files(folder))
    os.truncate(file, chance.randrange(file.stat().st_size))


def overwrite_one(folder: Path, chance: random.Random) -> None:
    file = chance.choice(_files(folder))
    _overwrite(file, chance.randrange(file.stat().st_size))


def lose_one(folder: Path, chance: random.Random) -> None:
    chance.choice(_files(folder)).unlink()


def _files(folder: Path) -> list[Path]:
    return [file for kind in DATA for file in sorted(folder.glob(kind)) if file.stat().st_size]


def _overwrite(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"\xa5" * min(64, file.stat().st_size // 3))


def test_a_killed_writer_leaves_what_it_flushed(tmp_path: Path) -> None:
    """Little more than the last `FLUSH_MS` of the changelog is to be read again: a flush under way
    is lost.
    """
    write(tmp_path / "s", 200, seed=1)
    assert 160 <= read(tmp_path / "s", seed=1) <= 200


@pytest.mark.parametrize("harm", [cut_all, overwrite_all, cut_one, overwrite_one, lose_one])
def test_a_harmed_store_is_noticed_or_whole(
    harm: Callable[[Path, random.Random], None], tmp_path: Path
) -> None:
    """No state is ever shown but that of the checkpoint: an older one, or none, never a hole."""
    for seed in range(3):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        count = 0
        for turn in range(2):
            count += chance.randint(100, 400)
            write(folder, count, seed)
            for copy in range(4):
                harmed = tmp_path / f"{seed}-{turn}-{copy}"
                shutil.copytree(folder, harmed)
                harm(harmed, chance)
                assert read(harmed, seed) <= count
