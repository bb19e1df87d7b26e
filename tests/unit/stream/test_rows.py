"""Records to rows and back."""

from __future__ import annotations

import pytest

from pipeline.model.record import Outgoing
from pipeline.stream import LogSettings
from pipeline.stream.rows import array, decode, encode


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 999])
def test_a_row_gives_back_its_records(count: int) -> None:
    """Each size of MessagePack's array header is read as it was written."""
    sent = [Outgoing("t", f"k{n}", b"v" * n, {"id": str(n)}) for n in range(count)]
    (chunk,) = encode(sent, LogSettings())
    found = decode("t", 99 + count, 7, array([chunk], count))
    assert [(r.offset, r.key, r.value, r.headers, r.time_ms) for r in found] == [
        (100 + n, r.key, r.value, r.headers, 7) for n, r in enumerate(sent)
    ]


@pytest.mark.parametrize("sizes", [(10, 10), (9, 7), (1, 70_000)])
def test_chunks_of_several_callers_share_a_row(sizes: tuple[int, int]) -> None:
    """Chunks that were encoded apart are one array together."""
    settings = LogSettings(row_records_max=100_000, row_bytes_max=1 << 30)
    sent = [[Outgoing("t", f"{part}.{n}", None, {}) for n in range(sizes[part])] for part in (0, 1)]
    chunks = [encode(part, settings)[0] for part in sent]
    found = decode("t", sum(sizes) - 1, 0, array(chunks, sum(sizes)))
    assert [record.key for record in found] == [each.key for part in sent for each in part]


def test_chunks_keep_to_the_limits_of_a_row() -> None:
    """Records are cut by count and by size, in order, each topic by itself."""
    settings = LogSettings(row_records_max=3, row_bytes_max=2_000)
    sent = [Outgoing("ab"[n % 2], str(n), b"x" * (1_500 if n == 4 else 1), {}) for n in range(10)]
    chunks = encode(sent, settings)
    assert all(chunk.count <= 3 for chunk in chunks)
    for topic in "ab":
        found = [
            record.key
            for chunk in chunks
            if chunk.topic == topic
            for record in decode(topic, chunk.count - 1, 0, array([chunk], chunk.count))
        ]
        assert found == [each.key for each in sent if each.topic == topic]
    assert sum(chunk.count for chunk in chunks) == 10
