"""What the bench says of processes, by processes whose use is known."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.peers.processes import cpu_s, family, resident_bytes

BURN = "import time\nwhile time.process_time() < {}: pass\n"
PARENT = (
    "import subprocess, sys\n"
    "ended = subprocess.run([sys.executable, '-c', {ended!r}], check=True)\n"
    "child = subprocess.Popen([sys.executable, '-c', {living!r}], stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "print('done', flush=True)\n"
    "sys.stdin.read()\n"
    "child.kill()\n"
)


@pytest.mark.process
def test_cpu_of_a_family_is_counted() -> None:
    """Children count, those that live and those that have ended."""
    living = BURN.format(0.3) + "print('done', flush=True)\ntime.sleep(60)\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(ended=BURN.format(0.3), living=living)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        used, alive, resident = (
            cpu_s(parent.pid),
            len(list(family(parent.pid))),
            resident_bytes(parent.pid),
        )
        parent.communicate(b"")

    assert used > 0.5  # 0.3 s each of the two children, less what ticks of 10 ms lose
    assert alive == 2
    assert resident > 1_000_000


def test_a_process_that_is_gone_has_used_nothing() -> None:
    """It may end while it is looked at."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert cpu_s(ended.pid) == 0
