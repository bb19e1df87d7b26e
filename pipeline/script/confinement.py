"""Confines the process that runs scripts: what comes in are the limits, what goes out is the list
of measures that the kernel refused.

The engines offer a script no file, no network and no process. This is the second wall, for the
day when an engine has a hole: few resources, an empty network, no privileges, and (seccomp) no
system calls but those that computing and the two pipes need. Linux has all of it; another Unix has
the resource limits and its own name for the rest.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_NOBODY = 65534
_STDERR_BYTES_MAX = 64 << 10

# Numbers of system calls from Linux' unistd.h: read write close fstat ppoll|poll mmap mprotect
# munmap mremap brk madvise rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack setitimer getpid
# sched_yield futex clock_gettime gettimeofday getrusage times getrandom restart_syscall exit
# exit_group. Everything else fails with EPERM: open, socket, clone, execve, ptrace, kill, …
_SYSTEM_CALLS: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000_003E,
        (
            *(0, 1, 3, 5, 7, 9, 10, 11, 25, 12, 28, 13, 14, 15, 131, 38, 39),
            *(24, 202, 228, 96, 98, 100, 318, 219, 60, 231),
        ),
    ),
    "aarch64": (
        0xC000_00B7,
        (
            *(63, 64, 57, 80, 73, 222, 226, 215, 216, 214, 233, 134, 135, 139, 132, 103, 172),
            *(124, 98, 113, 169, 165, 153, 278, 128, 93, 94),
        ),
    ),
}


def arm(seconds: float) -> None:
    """From now on, `seconds` of this process's CPU time end it (SIGPROF). 0: no longer.

    The kernel keeps this clock: it also stops code that an engine cannot interrupt, does not
    fire on a busy machine, and needs no other process.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


def confine(child_bytes_max: int, parent: int) -> list[str]:
    """Confine this process for good, once everything is imported. Where `parent` (a process id)
    is gone already, the process ends.

    Returns a sentence for each measure that the kernel refused.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    refused: list[str] = []
    _limit_resources(child_bytes_max, refused)
    if sys.platform == "linux":
        _confine_linux(parent, refused)
    else:
        refused.append(f"no walls against network and system calls on {sys.platform}")
    return refused


def _limit_resources(child_bytes_max: int, refused: list[str]) -> None:
    space = _address_space() + child_bytes_max
    for name, limit in (
        ("RLIMIT_AS", space),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_NOFILE", 3),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", _STDERR_BYTES_MAX),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (AttributeError, OSError, ValueError) as error:
            refused.append(f"{name}: {error}")


def _address_space() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - imports little
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30  # no /proc: more than the process starts with anywhere


def _confine_linux(parent: int, refused: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def attempt(name: str, call: Callable[[], int]) -> bool:
        if call() == 0:
            return True
        refused.append(f"{name}: {os.strerror(ctypes.get_errno())}")
        return False

    if libc.unshare(_CLONE_NEWNET) != 0:
        attempt("unshare(network)", lambda: libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
    if os.getuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        except OSError as error:
            refused.append(f"setuid(nobody): {error.strerror}")
    # After setuid, which clears it. The end of standard input says the same, if later.
    attempt("prctl(PDEATHSIG)", lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        sys.exit(0)
    attempt("prctl(DUMPABLE)", lambda: libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    if not attempt("prctl(NO_NEW_PRIVS)", lambda: libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)):
        return
    if platform.machine() not in _SYSTEM_CALLS:
        refused.append(f"seccomp: no list of system calls for {platform.machine()}")
        return
    filters = _filter(*_SYSTEM_CALLS[platform.machine()])

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.c_void_p))

    buffer = ctypes.create_string_buffer(filters, len(filters))
    program = Program(len(filters) // 8, ctypes.addressof(buffer))
    attempt("seccomp", lambda: libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0))


def _filter(architecture: int, allowed: tuple[int, ...]) -> bytes:
    """Return the classic BPF program: another architecture ends the process; what is not allowed
    fails with EPERM.
    """
    load, equal, answer = 0x20, 0x15, 0x06
    kill, fail, allow = 0x8000_0000, 0x0005_0001, 0x7FFF_0000
    code = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    for index, number in enumerate(allowed):
        code.append((equal, len(allowed) - index, 0, number))
    code += [(answer, 0, 0, fail), (answer, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *line) for line in code)
