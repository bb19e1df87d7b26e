"""Bytes as people write them: hexadecimal, with or without spaces, or base64."""

from __future__ import annotations

import re
from base64 import b64decode

from pipeline.errors import UsageError

_BETWEEN = re.compile(r"[\s:,_-]+")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")


def hex_bytes(text: str) -> bytes:
    """Return bytes of `0102ff`, `01 02 FF`, `01:02:ff` or `0x01 0x02`.

    ValueError: says how to write them.
    """
    parts = [part.removeprefix("0x") for part in _BETWEEN.split(text)]
    if not all(map(_HEX.fullmatch, parts)):
        raise ValueError("must be bytes in hexadecimal, two digits each: `01 0a ff`")
    return bytes.fromhex("".join(parts))


def payload_of(text: str) -> bytes:
    """Return the bytes that somebody typed: hexadecimal where it can be read so, else base64.

    UsageError: it is neither.
    """
    try:
        return hex_bytes(text)
    except ValueError:
        pass
    try:
        return b64decode(text.strip(), validate=True)
    except ValueError:
        raise UsageError(
            f"`{text[:60]}` is neither hexadecimal (`01 0a ff`) nor base64 (`AQr/`)", code="payload"
        ) from None
