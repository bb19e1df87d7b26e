"""Writes a store and is killed: `python -m tests.unit.stream.store_writer FOLDER COUNT SEED`.

Goes on where the store stands. What write `number` is about can be told from its number and the
seed alone, so that whoever opens the store knows what must be in it at each checkpoint.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from pipeline.stream.kafka_changes import changes_of
from pipeline.stream.kafka_store import PartitionStore

BUFFER_BYTES = 256 * 1024
FLUSH_MS = 1_000
PARTS = ("device", "link/ttn", "queue")


def change(number: int, seed: int) -> dict[tuple[str, str], Any]:
    """Return what a write changes: parts of some of 40 keys."""
    chance = random.Random(f"{seed}/{number}")
    return {
        (f"k{chance.randrange(40)}", chance.choice(PARTS)): [number, "x" * chance.randrange(600)]
        for _ in range(chance.randint(1, 20))
    }


def state_at(count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return all keys with their parts after so many writes."""
    state: dict[str, dict[str, Any]] = {f"k{key}": {} for key in range(40)}
    for number in range(count):
        for (key, part), value in change(number, seed).items():
            state[key][part] = value
    return state


def main() -> None:
    """Write, and die."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    store = PartitionStore(folder, BUFFER_BYTES, FLUSH_MS)
    for number in range(store.checkpoint.next, count):
        store.apply(changes_of(change(number, seed), {}), number + 1, number * 100, "topic")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
