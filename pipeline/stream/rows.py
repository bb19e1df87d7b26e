"""Records as the embedded log keeps them: in goes what is to be appended, out come rows, and back.

A row holds the records of one topic that were committed together, as one MessagePack array of
`[key, value, headers]`. Each step of SQLite gives up the interpreter's lock and must win it back:
a stage beside a thread that computes without pause copied 1,700 records a second with a row a
record, and 20,000 with rows of up to 1,000 (2 cores, 670 bytes a record).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from pipeline.errors import MessageError
from pipeline.model.record import Outgoing, Record
from pipeline.stream.settings import LogSettings

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, bytes | None, dict[str, str]]]).decode

_partition = attrgetter("partition")
_OURS = {None, 0}

RECORD_OVERHEAD_BYTES = 200  # Key and headers, for limits that need no exact size.


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Encoded records of one topic, in order, without the array's header."""

    topic: str
    count: int
    body: bytes


def encode(records: Sequence[Outgoing], settings: LogSettings) -> list[Chunk]:
    """Return the records as chunks that each fit a row; the order within a topic is kept.

    MessageError `record_too_large`: one is over `record_bytes_max`. ValueError: a partition that
    the embedded log does not have; it has 0 alone.
    """
    if len(records) == 1:
        return [_chunk(records[0].topic, records, settings)]
    by_topic: dict[str, list[Outgoing]] = {}
    for record in records:
        found = by_topic.get(record.topic)
        if found is None:
            by_topic[record.topic] = [record]
        else:
            found.append(record)
    return [
        _chunk(topic, part, settings)
        for topic, mine in by_topic.items()
        for part in _parts(mine, settings)
    ]


def array(chunks: Iterable[Chunk], count: int) -> bytes:
    """Return one row's blob out of chunks with `count` records in all."""
    return b"".join((_header(count), *(chunk.body for chunk in chunks)))


def decode(topic: str, last: int, time_ms: int, blob: bytes) -> list[Record]:
    """Return the records of a row whose last offset is `last`."""
    found = _decode(blob)
    first = last - len(found) + 1
    return [
        Record(topic, 0, offset, time_ms, key, value, headers)
        for offset, (key, value, headers) in enumerate(found, first)
    ]


def size_of(record: Outgoing | Record) -> int:
    """Return about how many bytes a record takes."""
    value = record.value
    return RECORD_OVERHEAD_BYTES if value is None else len(value) + RECORD_OVERHEAD_BYTES


def _parts(records: list[Outgoing], settings: LogSettings) -> list[list[Outgoing]]:
    if len(records) <= settings.row_records_max:
        # `size_of` of each, at a third of its cost.
        total = RECORD_OVERHEAD_BYTES * len(records)
        total += sum([len(record.value) for record in records if record.value is not None])
        if total <= settings.row_bytes_max:
            return [records]
    parts: list[list[Outgoing]] = [[]]
    size = 0
    for record in records:
        more = size_of(record)
        part = parts[-1]
        over = size + more > settings.row_bytes_max or len(part) >= settings.row_records_max
        if part and over:
            parts.append([record])
            size = more
        else:
            part.append(record)
            size += more
    return parts


def _chunk(topic: str, records: Sequence[Outgoing], settings: LogSettings) -> Chunk:
    partitions = set(map(_partition, records)) - _OURS
    if partitions:
        msg = f"The embedded log has partition 0 alone, not {partitions.pop()} of {topic}"
        raise ValueError(msg)
    count = len(records)
    body = _encode([(record.key, record.value, record.headers) for record in records])
    if len(body) > settings.record_bytes_max:
        _refuse_large(records, settings)
    return Chunk(topic, count, body[len(_header(count)) :])


def _refuse_large(records: Sequence[Outgoing], settings: LogSettings) -> None:
    for record in records:
        size = size_of(record)
        if size > settings.record_bytes_max:
            raise MessageError(
                f"A record for {record.topic} has {size} bytes; the limit is "
                f"{settings.record_bytes_max} (record_bytes_max)",
                code="record_too_large",
                limit=settings.record_bytes_max,
            )


def _header(count: int) -> bytes:
    """Return MessagePack's array header, in its shortest form as the encoder writes it."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65_536:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")
