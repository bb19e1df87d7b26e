"""The simulated servers as a process beside Funicular: started, waited for, ended.

In: what an onlooker may set. Out: addresses, as the environment variables that `rules/` reads.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Self

from pipeline.demo.fleet import DEVICES_MAX, KINDS
from pipeline.errors import RetryableError, UsageError

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
TOLD_BYTES_MAX = 4_096  # how much of the process's last words an error shows
LINE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the simulated servers listen; `minute_s` is how long a simulated minute takes."""

    url: str
    tts: str
    application: str
    state: str
    minute_s: float


class Demo:
    """The process. `start`, load the rules with `env`, start Funicular, `begin`; in the end `stop`.

    All methods block, `start` for about half a second and `stop` for less; call them before and
    after the event loop, or in a thread. As a context manager it starts and stops itself. When
    the process that made it dies, the servers end by themselves.
    """

    def __init__(
        self,
        *,
        tenant: str = "demo",
        devices: int = 24,
        rate: float = 40.0,
        seed: int = 1,
        port: int = 0,
    ) -> None:
        """UsageError: a fleet that cannot be. `rate` is in uplinks a second, about."""
        if not len(KINDS) <= devices <= DEVICES_MAX:
            raise UsageError(f"The demo has from {len(KINDS)} to {DEVICES_MAX} devices")
        if not 0.1 <= rate <= 10_000:
            raise UsageError("The demo's rate is from 0.1 to 10000 uplinks a second")
        self._options = {
            "tenant": tenant,
            "devices": devices,
            "rate": rate,
            "seed": seed,
            "port": port,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """Where the servers listen, once they were started."""
        if self._addresses is None:
            raise UsageError("The demo's servers were not started")
        return self._addresses

    @property
    def env(self) -> dict[str, str]:
        """What `rules/` needs in its environment to reach the servers."""
        return {
            "FUNICULAR_DEMO_TTS": self.addresses.tts,
            "FUNICULAR_DEMO_APPLICATION": self.addresses.application,
        }

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Addresses:
        """Start the servers and return when they listen. RetryableError: they do not."""
        options = [f"--{name}={value}" for name, value in self._options.items()]
        # A file, because nobody would read a pipe that fills up.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "pipeline.demo.servers", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ,
        )
        try:
            self._addresses = Addresses(**json.loads(self._first_line(timeout_s)))
        except BaseException:
            self.stop()
            raise
        return self._addresses

    def begin(self, funicular: str) -> None:
        """Let the fleet send its uplinks to Funicular at this address, from when it is ready.

        RetryableError: the servers have ended.
        """
        assert self._process is not None, "start first"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(funicular.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def check(self) -> None:
        """RetryableError: the servers have ended by themselves."""
        if self._process is not None and self._process.poll() is not None:
            raise self._ended()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the servers, by force where they do not obey. May be called again."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _first_line(self, timeout_s: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise RetryableError(
                    f"The demo's servers did not start within {timeout_s:g} s{self._told()}"
                )
            piece = os.read(stdout, LINE_BYTES_MAX)
            if not piece:
                self._process.wait()
                raise self._ended()
            line += piece
        return line

    def _ended(self) -> RetryableError:
        code = self._process.poll() if self._process is not None else None
        return RetryableError(f"The demo's servers ended with exit code {code}{self._told()}")

    def _told(self) -> str:
        """Return the process's last words, to end a sentence with."""
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - TOLD_BYTES_MAX))
        words = self._stderr.read().decode(errors="replace").strip()
        return f":\n{words}" if words else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
