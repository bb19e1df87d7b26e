"""The frames between parent and child, as the child reads and writes them."""

from __future__ import annotations

import io
import json
import os

from pipeline.script.frames import ANSWER, LENGTHS, Request, read_request, write_frame

HEADER = {"operation": "decode_uplink", "contract": "lorawan", "count": 3, "careful": False}


def test_reads_requests_until_the_end() -> None:
    """Requests come one after another, then None; a request cut off is the end too."""
    bodies = [json.dumps(HEADER).encode(), b"source", b'[1,"\xc3\xbc",{"a":2}]']
    frame = LENGTHS.pack(*map(len, bodies)) + b"".join(bodies)
    stream = io.BytesIO(frame + frame + frame[:5])
    for _ in range(2):
        request = read_request(stream)
        assert request is not None
        assert (request.source, request.count) == (b"source", 3)
        assert request.arguments() == [1, "ü", {"a": 2}]
    assert read_request(stream) is None


def test_text_of_some_calls() -> None:
    """All arguments are handed on as they came; a part of them is a JSON array as well."""
    request = Request(HEADER, b"", b"[1, 2, 3]")
    assert request.text(0, 3) == "[1, 2, 3]"
    assert json.loads(request.text(1, 3)) == [2, 3]


def test_writes_all_of_a_frame() -> None:
    """A frame is its length, the CPU time that it took, and its body."""
    reader, writer = os.pipe()
    write_frame(writer, b"abc", 7)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == ANSWER.pack(3, 7) + b"abc"
