"""How Python itself is set, in each process of the command."""

from __future__ import annotations

import gc
import sys

COLLECT_AFTER = (50_000, 20, 100)
"""New objects before the garbage collector looks at the youngest; how often before it looks at the
older ones, and at all (Python: 700, 10, 10)."""


def tune_interpreter() -> None:
    """Set what Python's defaults do not fit: a process that does nothing but carry messages,
    or that imports and ends.

    Threads of stages compute while the committer's thread gives up the interpreter's lock at each
    step of SQLite; at Python's own switch interval of 5 ms an append beside a busy stage took
    38 ms, at this one 4 ms (`python -m tests.bench.log`).

    The messages of a batch and the devices' state are trees, which counting references frees; the
    collector only searches them for rings, and did so each 700 new objects: a fifth of all CPU time
    (`python -m tests.bench.profiles --parts`). It still comes, at these numbers of new objects.
    """
    sys.setswitchinterval(0.0005)
    gc.set_threshold(*COLLECT_AFTER)
