"""A Docker daemon and the images of `deploy/` for the tests of this folder.

The daemon: the one that answers, else one of our own where this is root on a machine with
`dockerd`. It shares nothing with the machine's: neither socket nor images nor the locks that one
which was killed may have left; and it ends with the session. `deploy/prepare-ci` installs what is
missing. Where nothing helps, `needed()` skips the test, loudly, or fails it where `CI` is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UP_S = 60.0
COMMAND_S = 300.0
_PR_SET_PDEATHSIG = 1


class Docker:
    """Commands to one daemon; `env` is what a client needs to find it."""

    def __init__(self, host: str | None = None) -> None:
        self.env = {"DOCKER_HOST": host} if host else {}

    def answers(self) -> bool:
        """Tell whether the daemon answers."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.run("docker", "info", timeout_s=10.0)
            return True
        return False

    def run(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> str:
        """Run a command in the project's folder; return its output. A failure shows all of it."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | self.env | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise CommandError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}")
        return done.stdout


class CommandError(subprocess.SubprocessError):
    """A command failed; the message has its output."""


def needed(*, condition: bool, why: str) -> None:
    """Skip the test, loudly, where a condition does not hold; fail it where `CI` is set."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{why}; deploy/prepare-ci installs it")
    pytest.skip(f"LEFT OUT, {why}; deploy/prepare-ci installs it")


@contextlib.contextmanager
def running() -> Iterator[Docker]:
    """Yield the machine's daemon, or one of our own that ends with the block."""
    needed(condition=shutil.which("docker") is not None, why="no `docker` command")
    docker = Docker()
    if docker.answers():
        yield docker
        return
    able = os.geteuid() == 0 and shutil.which("dockerd") is not None
    needed(condition=able, why="no Docker daemon answers, and none can be started here")
    with _own() as docker:
        yield docker


@contextlib.contextmanager
def _own() -> Iterator[Docker]:
    """Start a daemon without bridges and firewall rules: the tests share this machine's network."""
    folder = Path(tempfile.mkdtemp(prefix="funicular-docker-"))
    docker = Docker(f"unix://{folder}/docker.sock")
    log = folder / "dockerd.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["dockerd", "--host", docker.env["DOCKER_HOST"], "--pidfile", folder / "docker.pid",
             "--data-root", folder / "data", "--exec-root", folder / "exec",
             "--bridge", "none", "--iptables=false"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of the C library
        )  # fmt: skip
    try:
        deadline = time.monotonic() + UP_S
        while not docker.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"dockerd did not start:\n{log.read_text()[-4_000:]}")
            time.sleep(0.2)
        yield docker
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):  # its containerd may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", folder / "exec/netns/default"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_parent() -> None:
    """Have the kernel end the daemon when the tests' process ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
