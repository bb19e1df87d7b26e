"""The unpacking of bodies."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from pipeline.ingest.body import MEMBERS_MAX, unpack
from pipeline.model.http import Response

TEXT = b'{"device": "d1"}' * 20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", TEXT),
        ("", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
def test_unpacks_what_it_knows(encoding: str, body: bytes) -> None:
    """Every encoding that is taken gives the bytes that were packed."""
    assert unpack(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_may_be_as_long_as_the_limit_and_no_longer(encoding: str) -> None:
    """The limit holds for what is unpacked, to the byte."""
    body = gzip.compress(TEXT, mtime=0) if encoding == "gzip" else zlib.compress(TEXT)

    assert unpack(body, encoding, len(TEXT)) == TEXT
    refused = unpack(body, encoding, len(TEXT) - 1)
    assert isinstance(refused, Response)
    assert refused.status == 413


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_takes_no_memory(pack: object) -> None:
    """A body that unpacks to 100 MB is refused, and at most a few times the limit is held."""
    bomb = pack(bytes(100_000_000))  # type: ignore[operator]
    encoding = "gzip" if pack is gzip.compress else "deflate"
    tracemalloc.start()

    refused = unpack(bomb, encoding, 1_000_000)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(refused, Response)
    assert refused.status == 413
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", b""),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-9]),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"rubbish"),
        ("gzip", gzip.compress(b"x", mtime=0) * (MEMBERS_MAX + 1)),
        ("deflate", zlib.compress(TEXT)[:-5]),
        ("deflate", b""),
    ],
)
def test_a_broken_stream_is_a_bad_request(encoding: str, body: bytes) -> None:
    """What is not of its encoding, or ends early, is refused with 400."""
    refused = unpack(body, encoding, 10_000)

    assert isinstance(refused, Response)
    assert refused.status == 400
    assert b"content_encoding" in refused.body


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1_000])
def test_other_encodings_are_refused(encoding: str) -> None:
    """An encoding that is not known is 415, with those that are."""
    refused = unpack(TEXT, encoding, 10_000)

    assert isinstance(refused, Response)
    assert refused.status == 415
    assert refused.headers["accept-encoding"] == "gzip, deflate"
    assert len(refused.body) < 300
