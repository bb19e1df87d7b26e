"""The walls around a child: a process that has confined itself tries each hole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

# Each attempt is an expression that raises where the wall stands.
ATTEMPTS = {
    "read a file": "open('/etc/passwd')",
    "write a file": "open('/tmp/funicular-hole', 'w')",
    "list a folder": "os.listdir('/')",
    "open a socket": "socket.socket()",
    "open a pipe": "os.pipe()",
    "fork": "os.fork()",
    "start a program": "os.execv('/bin/true', ['true'])",
    "start a thread": "_thread.start_new_thread(int, ())",
    "signal another process": "os.kill(parent, 0)",
    "become root again": "os.setuid(0)",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))",
    "take memory without end": "bytearray(1 << 30)",
    "write a long error": "os.write(2, bytes(1 << 20)) == 1 << 20 or 1 / 0",
}
PROGRAM = """
import json, os, resource, socket, sys, _thread
from pipeline.script.confinement import confine
parent = os.getppid()
refused = confine(64 << 20, parent)
got_through = []
for name, attempt in json.loads(sys.argv[1]).items():
    try:
        eval(attempt)
    except (OSError, MemoryError, RuntimeError, ValueError, ZeroDivisionError):
        continue
    got_through.append(name)
os.write(1, json.dumps([refused, got_through]).encode())
"""


def confined(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with tempfile.TemporaryFile() as stderr:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=60,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )


def test_every_hole_is_closed() -> None:
    """A confined process reaches no file, network, process, thread, privilege or memory beyond
    its own; where the kernel refuses a wall, it says so.
    """
    done = confined(PROGRAM, json.dumps(ATTEMPTS))
    refused, got_through = json.loads(done.stdout)
    if any("seccomp" in sentence or "NO_NEW_PRIVS" in sentence for sentence in refused):
        # What the other walls close by themselves.
        assert "take memory without end" not in got_through
    else:
        assert got_through == []


def test_the_kernel_keeps_the_time() -> None:
    """Code that nothing in the process can stop ends with the CPU time that was armed."""
    program = (
        "import os; from pipeline.script.confinement import arm, confine\n"
        "confine(64 << 20, os.getppid()); arm(0.05)\nwhile True: pass"
    )
    assert confined(program).returncode == -27  # SIGPROF


def test_a_child_without_its_parent_ends() -> None:
    """A process whose parent is gone before it could ask to die with it, ends by itself."""
    program = (
        "import os; from pipeline.script.confinement import confine\n"
        "confine(64 << 20, 1 if os.getppid() != 1 else 2); os.write(1, b'alive')"
    )
    done = confined(program)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_what_is_listed(machine: str) -> None:
    """The filter program lets each listed call through and fails any other."""
    from pipeline.script.confinement import _SYSTEM_CALLS, _filter

    architecture, allowed = _SYSTEM_CALLS[machine]
    program = _filter(architecture, allowed)
    code = [
        (
            int.from_bytes(program[at : at + 2], sys.byteorder),
            program[at + 2],
            program[at + 3],
            int.from_bytes(program[at + 4 : at + 8], sys.byteorder),
        )
        for at in range(0, len(program), 8)
    ]

    def run(number: int, arch: int) -> int:
        loaded, at = 0, 0
        while True:
            operation, when_equal, otherwise, value = code[at]
            at += 1
            if operation == 0x20:
                loaded = arch if value == 4 else number
            elif operation == 0x15:
                at += when_equal if loaded == value else otherwise
            else:
                return value

    assert {run(number, architecture) for number in allowed} == {0x7FFF_0000}
    assert {run(number, architecture) for number in set(range(500)) - set(allowed)} == {0x0005_0001}
    assert run(allowed[0], architecture ^ 1) == 0x8000_0000
