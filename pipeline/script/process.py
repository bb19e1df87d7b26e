"""One child process as the parent has it: requests go in, outcomes come out; it may die.

The child gets no environment, no file but its pipes, and runs in `/`. Everything that comes from
it is treated as data of a stranger: lengths are limited, and it is JSON or the child is ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from time import monotonic
from typing import Any, Literal

import orjson

from pipeline.errors import RetryableError
from pipeline.script.frames import ANSWER, LENGTHS
from pipeline.script.limits import ScriptLimits
from pipeline.script.tables import Part, part_of

Loss = Literal["time", "killed", "crashed", "stalled"]
_MODULE = "pipeline.script.serve"
_FRAME_BYTES_SPARE = 64 << 10  # brackets, commas and error texts of a slice
_READ_BYTES = 256 << 10
_STDERR_SHOWN = 2_000


class ChildLostError(Exception):
    """The child is gone, or had to be ended: `reason` says which way, `said` what it wrote to its
    standard error: a fault of ours.

    `time`: the kernel ended it after the CPU time that a call may take. `killed`: somebody
    else's SIGKILL, which may be the kernel's for want of memory. `stalled`: it was ended because
    it said nothing. `crashed`: anything else, its own fault.
    """

    def __init__(self, reason: Loss, said: str = "") -> None:
        super().__init__(reason)
        self.reason: Loss = reason
        self.said = said


class ScriptProcess:
    """A running child. One thread at a time.

    Raises RetryableError where it does not start. `refused`: what the kernel refused of the
    confinement. Must be created by a thread that outlives it: it dies with that thread.
    """

    def __init__(self, language: str, limits: ScriptLimits) -> None:
        self._limits = limits
        self._frame_bytes_max = (
            limits.slice_bytes_max + 2 * limits.result_bytes_max + _FRAME_BYTES_SPARE
        ) * 4  # characters of JSON text, of up to four bytes each
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        paths = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100 - "" is the cwd
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [
                *(sys.executable, "-s", "-P", "-B", "-m", _MODULE),
                *(language, json.dumps(asdict(limits)), str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(paths), "TZ": "UTC", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._requests = self._process.stdin.fileno()
        self._answers = self._process.stdout.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        self._received = bytearray()
        self.frame_bytes = 0
        """How long the last answer was that `run` gave, with all of its names."""
        self.frame_cpu_s = 0.0
        """How much CPU time the child had used for it, as it says."""
        try:
            ready = orjson.loads(self._read_frame(monotonic() + limits.start_ms / 1000))
            self.refused: list[str] = ready["refused"]
        except (ChildLostError, orjson.JSONDecodeError, KeyError, TypeError):
            said = self._said()
            self.end()
            raise RetryableError(
                f"the {language} engine did not start: {said or 'it said nothing'}",
                code="script_engine",
            ) from None

    def run(self, header: dict[str, Any], source: bytes, arguments: bytes) -> Iterator[Part]:
        """Yield the next outcomes until there are `header["count"]`.

        ChildLostError: no more will come. Whoever leaves before the last one loses the process:
        what it still had to say would be taken for the next answer.
        """
        left: int = header["count"]
        try:
            head = orjson.dumps(header)
            lengths = LENGTHS.pack(len(head), len(source), len(arguments))
            self._write(lengths + head + source + arguments)
            while left:
                part = self._part(self._read_frame(self._stall_time()), left)
                left -= len(part.values)
                yield part
        finally:
            if left:
                self.end()

    def _part(self, frame: bytes, count_max: int) -> Part:
        try:
            part = part_of(orjson.loads(frame), count_max)
        except ValueError:  # also of what is no JSON
            raise ChildLostError("crashed") from None
        self.frame_bytes += part.left_out
        return part

    @property
    def is_ended(self) -> bool:
        """Whether `end` was called."""
        return self._stderr.closed

    def end(self) -> None:
        """End the process, whatever it does, and wait for it; at any time, also twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def _stall_time(self) -> float:
        return monotonic() + self._limits.stall_ms / 1000

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        until = self._stall_time()
        while left:
            try:
                left = left[os.write(self._requests, left) :]
                until = self._stall_time()
            except BlockingIOError:
                self._wait(self._requests, select.POLLOUT, until)
            except (BrokenPipeError, ConnectionResetError):
                raise self._lost() from None

    def _read_frame(self, until: float) -> bytes:
        length, cpu_us = ANSWER.unpack(self._read(ANSWER.size, until))
        if length > self._frame_bytes_max:
            raise ChildLostError("crashed")
        self.frame_bytes = length
        self.frame_cpu_s = cpu_us / 1e6
        return self._read(length, until)

    def _read(self, count: int, until: float) -> bytes:
        received = self._received
        while len(received) < count:
            try:
                chunk = os.read(self._answers, _READ_BYTES)
            except BlockingIOError:
                self._wait(self._answers, select.POLLIN, until)
                continue
            if not chunk:
                raise self._lost()
            received += chunk
        data = bytes(received[:count])
        del received[:count]
        return data

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, until - monotonic()) * 1000):
            self._process.kill()
            self._process.wait()
            raise ChildLostError("stalled")

    def _lost(self) -> ChildLostError:
        """Say how the child ended. Its pipes are closed, so it has ended or is about to."""
        try:
            code = self._process.wait(timeout=self._limits.stall_ms / 1000)
        except subprocess.TimeoutExpired:
            return ChildLostError("crashed", self._said())
        if code == -signal.SIGPROF:
            return ChildLostError("time")
        return ChildLostError("killed" if code == -signal.SIGKILL else "crashed", self._said())

    def _said(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_SHOWN))
        return self._stderr.read().decode(errors="replace").strip()
