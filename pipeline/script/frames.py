"""The frames between parent and child, as the child reads and writes them.

A request is three lengths (unsigned, 32 bits, big endian) and three bodies: a header as JSON
(`operation`, `contract`, `count`, `careful`, `console`), the script's source as UTF-8, and the
arguments of its calls as a JSON array. An answer is one length and a JSON array of the next
outcomes, in order: `{"value": …}` or `{"error": {"code", "message", "line", "column"}}`, with
`console`, a list of texts, where the header asks for what the script said there; those that are
alike may come as a table (`tables`). A request is answered when as many outcomes have come as there
are calls; `careful` asks for each outcome as soon as it is there. With an answer's length goes the
CPU time in µs that the child has used since its last one.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, BinaryIO

LENGTHS = struct.Struct(">III")
ANSWER = struct.Struct(">II")
CPU_US_MAX = 2**32 - 1


class Request:
    """One script's calls of one operation."""

    def __init__(self, header: dict[str, Any], source: bytes, arguments: bytes) -> None:
        self.operation: str = header["operation"]
        self.contract: str = header["contract"]
        self.count: int = header["count"]
        self.careful: bool = header["careful"]
        self.console: bool = header.get("console", False)
        self.source = source
        self._arguments = arguments
        self._parsed: list[Any] | None = None

    def arguments(self) -> list[Any]:
        """Return the calls' arguments."""
        if self._parsed is None:
            self._parsed = json.loads(self._arguments)
        return self._parsed

    def text(self, begin: int, end: int) -> str:
        """Return the arguments of some of the calls as a JSON array."""
        if begin == 0 and end == self.count:
            return self._arguments.decode()
        return json.dumps(self.arguments()[begin:end])


def read_request(stream: BinaryIO) -> Request | None:
    """Wait for a request; None at the end of the stream."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    bodies = [stream.read(length) for length in LENGTHS.unpack(lengths)]
    return Request(json.loads(bodies[0]), bodies[1], bodies[2])


def write_frame(descriptor: int, body: bytes, cpu_us: int = 0) -> None:
    """Write an answer; returns when all of it is in the pipe. BrokenPipeError: no reader."""
    left = memoryview(ANSWER.pack(len(body), min(cpu_us, CPU_US_MAX)) + body)
    while left:
        left = left[os.write(descriptor, left) :]
