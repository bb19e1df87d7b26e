"""The child process: `python -m pipeline.script.serve <language> <limits as JSON> <parent's id>`.

Requests come on standard input, answers go to standard output (`frames`); before the first one
goes `{"ready": true, "refused": [...]}`: what the kernel refused of the confinement. The process
ends with its standard input. It imports little, so that it starts fast.
"""

from __future__ import annotations

import gc
import json
import sys
from time import process_time_ns
from typing import Any, Protocol

from pipeline.script.confinement import confine
from pipeline.script.frames import Request, read_request, write_frame

_OUTPUT = 1


class Emit(Protocol):
    """Sends the next outcomes: a JSON array as bytes."""

    def __call__(self, outcomes: bytes) -> None:
        """Blocks while the pipe is full."""
        ...


class Engine(Protocol):
    """Runs requests. It emits as many outcomes as the request has calls, in their order."""

    def run(self, request: Request, emit: Emit) -> None:
        """Emit a part at least every `slice_ms` of work, and each outcome by itself if careful."""
        ...


def _engine(language: str, limits: dict[str, Any]) -> Engine:
    if language == "lua":
        from pipeline.script.lua import Lua  # noqa: PLC0415 - a child needs one engine only

        return Lua(limits)
    if language == "tbel":
        from pipeline.script.tbel_engine import Tbel  # noqa: PLC0415 - likewise

        return Tbel(limits)
    from pipeline.script.javascript import JavaScript  # noqa: PLC0415 - likewise

    return JavaScript(limits)


class _Answers:
    """Writes answers, each with the CPU time that went by since the last one."""

    def __init__(self) -> None:
        self._before_ns = process_time_ns()

    def emit(self, outcomes: bytes) -> None:
        now_ns = process_time_ns()
        write_frame(_OUTPUT, outcomes, (now_ns - self._before_ns) // 1_000)
        self._before_ns = now_ns


def serve(language: str, limits: dict[str, Any], parent: int) -> None:
    """Answer requests until standard input ends."""
    requests = open(0, "rb", buffering=1 << 16, closefd=False)  # noqa: SIM115 - a pipe
    engine = _engine(language, limits)
    refused = confine(limits["child_bytes_max"], parent)
    gc.freeze()
    answers = _Answers()
    answers.emit(json.dumps({"ready": True, "refused": refused}).encode())
    while (request := read_request(requests)) is not None:
        engine.run(request, answers.emit)


if __name__ == "__main__":
    try:
        serve(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
    except BrokenPipeError:  # The parent is gone: there is nobody left to tell.
        sys.exit(0)
