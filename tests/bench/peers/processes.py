"""What a process and all its descendants have used: CPU time and memory, from `/proc`.

In: a process id. Out: seconds of CPU of it, of its living descendants, and of those that have
ended and were waited for; bytes that are resident. The kernel counts CPU in ticks of 10 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_AFTER_NAME = 2  # The fields of `stat` after the name begin with the third, proc(5).


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants that are alive."""
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for each in threads for child in (each / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return
    for child in children:
        yield from family(int(child))


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that the family has used since it began."""
    return sum(_stat(each, (13, 14, 15, 16)) for each in family(pid)) / _TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """Return how much memory of the family is resident now; what two share counts twice."""
    return sum(_stat(each, (23,)) for each in family(pid)) * _PAGE_BYTES


def _stat(pid: int, fields: tuple[int, ...]) -> int:
    """Return the sum of some of the fields of `/proc/<pid>/stat`, counted from 0."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name is in parentheses, and may hold blanks and parentheses itself.
    values = text.rpartition(")")[2].split()
    return sum(int(values[field - _AFTER_NAME]) for field in fields)
