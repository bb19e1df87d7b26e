"""Runs a command several times at once.

`python -m tests.bench.peers.several COUNT FOLDER COMMAND…`: `{data}` in the
command becomes a folder of each one's own, below FOLDER. SIGTERM goes on to all of them; when one
ends, all do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them; return the exit code of the one that ended first."""
    count, folder, command = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    running = []
    for number in range(count):
        words = [word.replace("{data}", str(folder / str(number))) for word in command]
        running.append(subprocess.Popen(words))

    def end(*_: object) -> None:
        for each in running:
            each.terminate()

    signal.signal(signal.SIGTERM, end)
    first, status = os.wait()
    end()
    for each in running:
        if each.pid != first:
            each.wait()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
