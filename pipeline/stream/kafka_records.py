"""Records as Kafka has them: keys and headers are bytes there, and text here.

Foreign bytes (any producer may write) become text with stand-ins; nothing fails on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.model.record import Record


def header_bytes(headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """Return headers as they are written."""
    return [(name, value.encode("utf-8", "surrogatepass")) for name, value in headers.items()]


def header_texts(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """Return headers as they are read; of a name that comes twice the last one counts."""
    return {
        name: "" if value is None else value.decode("utf-8", "replace") for name, value in headers
    }


def key_text(key: bytes | None) -> str:
    """Return a key as it is read; a record without one has the empty key."""
    return "" if key is None else key.decode("utf-8", "replace")


def record_of(topic: str, found: Any) -> Record:
    """Return what aiokafka read; `topic` is our name of it."""
    return Record(
        topic,
        found.partition,
        found.offset,
        found.timestamp,
        key_text(found.key),
        found.value,
        header_texts(found.headers) if found.headers else {},
    )
