"""Unpacks a request's body: the bytes of the wire in, the bytes the dialect reads out.

Both sides have the same limit, so that a few kilobytes cannot become gigabytes.
"""

from __future__ import annotations

import zlib

from pipeline.model.http import Response

from .problem import problem

MEMBERS_MAX = 64
"""Of one gzip stream: each may be tiny, and costs a decompressor."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def too_large(bytes_max: int) -> Response:
    """Return the 413 of a body over its limit."""
    return problem(
        413, "body_too_large", f"the body is over {bytes_max} bytes", bytes_max=bytes_max
    )


def unpack(body: bytes, encoding: str, bytes_max: int) -> bytes | Response:
    """Return the body without its `Content-Encoding`, or the answer that refuses it.

    Never holds more than `bytes_max` and one byte of output.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    try:
        if encoding in ("gzip", "x-gzip"):
            unpacked = _gunzip(body, bytes_max)
        elif encoding == "deflate":
            # RFC 9110 means zlib's format; some clients send the raw stream by that name.
            zlib_head = len(body) > 1 and body[0] & 0x0F == 8 and not (body[0] << 8 | body[1]) % 31
            unpacked = _inflate(body, _ZLIB if zlib_head else _RAW, bytes_max)[0]
        else:
            return problem(
                415,
                "content_encoding",
                f"Content-Encoding {encoding[:40]!r} is not known here; send identity, gzip or"
                " deflate",
                headers={"accept-encoding": "gzip, deflate"},
            )
    except zlib.error as error:
        return problem(400, "content_encoding", f"the body is not {encoding}: {error}")
    return unpacked if len(unpacked) <= bytes_max else too_large(bytes_max)


def _gunzip(body: bytes, bytes_max: int) -> bytes:
    unpacked, rest = _inflate(body, _GZIP, bytes_max)
    members = 1
    while rest and len(unpacked) <= bytes_max:
        members += 1
        if members > MEMBERS_MAX:
            raise zlib.error(f"more than {MEMBERS_MAX} members")
        more, rest = _inflate(rest, _GZIP, bytes_max - len(unpacked))
        unpacked += more
    return unpacked


def _inflate(body: bytes, window_bits: int, bytes_max: int) -> tuple[bytes, bytes]:
    """Return at most one byte more than the limit, and what comes after the stream's end."""
    inflater = zlib.decompressobj(window_bits)
    unpacked = inflater.decompress(body, bytes_max + 1)
    if len(unpacked) <= bytes_max and not inflater.eof:
        raise zlib.error("the stream ends too early")
    return unpacked, inflater.unused_data
