"""Real servers that tests start on free ports, in folders of their own: found on this machine, or
the test is skipped loudly; where `CI` is set it fails.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pytest

START_S = 10.0
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def program(name: str, package: str) -> str:
    """Return a program's path; skip the test, or fail it where `CI` is set, without it."""
    found = shutil.which(name, path=_PATH)
    if found:
        return found
    said = f"{name} is not installed: apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def until(true: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait in short steps. AssertionError: it did not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Return whether something on loopback takes connections at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Mosquitto:
    """An MQTT broker that keeps sessions over a `kill`: what it acknowledged is on disk then.

    `tls`: a folder with ca.pem, server.pem and server.key; clients must then show a certificate.
    """

    def __init__(self, folder: Path, *, tls: Path | None = None, lines: Sequence[str] = ()) -> None:
        self._program = program("mosquitto", "mosquitto")
        self._folder = folder
        self.port = free_port()
        config = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "user root",
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            "autosave_interval 1",
            "autosave_on_changes true",
            f"log_dest file {folder}/mosquitto.log",
            *lines,
        ]
        if tls is not None:
            config += [
                f"cafile {tls}/ca.pem",
                f"certfile {tls}/server.pem",
                f"keyfile {tls}/server.key",
                "require_certificate true",
            ]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(config) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen([self._program, "-c", str(self._config)])
        until(lambda: listens(self.port), START_S, "mosquitto listens")
        return self

    def log(self) -> str:
        """Return what it has said so far."""
        return (self._folder / "mosquitto.log").read_text()

    def stop(self, *, kill: bool = False) -> None:
        """End it; again is fine."""
        process, self._process = self._process, None
        if process is not None:
            process.kill() if kill else process.terminate()
            process.wait(timeout=START_S)


class Certificates:
    """A folder with a CA of our own, and certificates of a server and of a client."""

    def __init__(self, folder: Path) -> None:
        self._program = program("openssl", "openssl")
        self.folder = folder
        self._run("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca"
                  " -keyout ca.key -out ca.pem")  # fmt: skip
        for name in ("server", "client"):
            self.make(name)

    def make(self, name: str) -> None:
        """Make the certificate of somebody with a name."""
        (self.folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self._run(f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key"
                  f" -out {name}.csr")  # fmt: skip
        self._run(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
                  f" -extfile {name}.ext -out {name}.pem")  # fmt: skip

    def _run(self, command: str) -> None:
        subprocess.run(
            [self._program, *command.split()], cwd=self.folder, check=True, capture_output=True
        )

    def path(self, name: str) -> str:
        """Return a file's path."""
        return str(self.folder / name)
