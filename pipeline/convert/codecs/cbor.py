"""CBOR (RFC 8949), as much of it as JSON has, and bytes: bytes ⇄ values.

Definite and indefinite lengths, all sizes of numbers; tags are passed over. Not a codec by itself.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from pipeline.convert.codecs.codec import bad

DEPTH_MAX = 16
_BREAK = object()
_FLOATS = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}
_SIMPLE = {20: False, 21: True, 22: None, 23: None}


def read_cbor(data: bytes) -> Any:
    """Return the one value of `data`. MessageError (`codec`): it is not one whole value."""
    reader = _Reader(data)
    value = reader.value(0)
    if value is _BREAK:
        raise bad("the payload is no CBOR: it begins with a break", offset=0)
    if reader.at != len(data):
        raise bad(f"the payload is no CBOR: bytes from {reader.at} on are left over")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise bad(f"the payload is nested deeper than {DEPTH_MAX} levels")
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            return self._simple(info)
        if info == 31:
            return self._endless(major, depth)
        count = self._count(info)
        if major < 2:
            return count if major == 0 else -1 - count
        if major < 4:
            raw = self._take(count)
            return raw if major == 2 else self._text(raw)
        if major == 6:  # a tag says more of what follows
            return self.value(depth + 1)
        if count > len(self._data) - self.at:
            raise self._short()
        if major == 4:
            return [self._whole(depth) for _ in range(count)]
        return {self._key(depth): self._whole(depth) for _ in range(count)}

    def _endless(self, major: int, depth: int) -> Any:
        if major in (2, 3):
            parts = b""
            while (part := self.value(depth + 1)) is not _BREAK:
                parts += part.encode() if isinstance(part, str) else self._bytes(part)
            return parts if major == 2 else self._text(parts)
        if major == 4:
            items = []
            while (item := self.value(depth + 1)) is not _BREAK:
                items.append(item)
            return items
        if major == 5:
            pairs = {}
            while (key := self.value(depth + 1)) is not _BREAK:
                pairs[self._hashable(key)] = self._whole(depth)
            return pairs
        raise bad(f"the payload is no CBOR: byte {self.at - 1}", offset=self.at - 1)

    def _simple(self, info: int) -> Any:
        if info == 31:
            return _BREAK
        if info in _FLOATS:
            form, size = _FLOATS[info]
            (number,) = struct.unpack(form, self._take(size))
            if not math.isfinite(number):
                raise bad(f"byte {self.at - size}: a number must be finite", offset=self.at - size)
            return number
        if info in _SIMPLE:
            return _SIMPLE[info]
        raise bad(f"byte {self.at - 1}: this value of CBOR has no meaning in JSON")

    def _whole(self, depth: int) -> Any:
        value = self.value(depth + 1)
        if value is _BREAK:
            raise bad(f"the payload is no CBOR: a break at byte {self.at - 1}", offset=self.at - 1)
        return value

    def _key(self, depth: int) -> Any:
        return self._hashable(self._whole(depth))

    @staticmethod
    def _hashable(key: Any) -> Any:
        if not isinstance(key, str | int):
            raise bad("a key in CBOR must be text or a whole number")
        return key

    def _count(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise bad(f"the payload is no CBOR: byte {self.at - 1}", offset=self.at - 1)
        return int.from_bytes(self._take(1 << info - 24), "big")

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise self._short()
        taken = self._data[self.at : self.at + count]
        self.at += count
        return taken

    def _short(self) -> Exception:
        return bad(f"the payload is no CBOR: it ends within a value at byte {self.at}")

    @staticmethod
    def _bytes(part: Any) -> bytes:
        if not isinstance(part, bytes):
            raise bad("the payload is no CBOR: a text or byte string in parts has other parts")
        return part

    @staticmethod
    def _text(data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise bad("a text in CBOR is not UTF-8") from None


def write_cbor(value: Any) -> bytes:
    """Return JSON's values, or maps with whole numbers as keys, in the shortest form."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(write_cbor, value))
    if isinstance(value, dict):
        pairs = b"".join(write_cbor(key) + write_cbor(item) for key, item in value.items())
        return _head(5, len(value)) + pairs
    raise bad(f"a {type(value).__name__} cannot be written as CBOR")


def _float(value: float) -> bytes:
    for first, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return first + packed
    return b"\xfb" + struct.pack(">d", value)


def _head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes([major << 5 | count])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if count < 1 << 8 * size:
            return bytes([major << 5 | info]) + count.to_bytes(size, "big")
    raise bad(f"{count} is too large a number for CBOR")
