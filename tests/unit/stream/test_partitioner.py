from __future__ import annotations

import random

import pytest

from pipeline.stream.partitioner import murmur2, partition_of

# Of Java's own test, UtilsTest.testMurmur2; there as signed integers.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("data", VECTORS)
def test_murmur2_gives_what_java_gives(data: bytes) -> None:
    """The vectors of Kafka's own test hold."""
    assert murmur2(data) == VECTORS[data] & 0xFFFFFFFF


def test_murmur2_gives_what_aiokafka_gives() -> None:
    """For keys of each length, with any bytes, aiokafka's partitioner has the same hash."""
    from aiokafka.partitioner import murmur2 as theirs

    dice = random.Random(7)
    for size in range(300):
        data = dice.randbytes(size % 67)
        assert murmur2(data) == theirs(data) & 0xFFFFFFFF


def test_partitions_are_in_range_and_used() -> None:
    """Devices' keys spread over all partitions, and a key keeps its partition."""
    keys = [f"acme/device-{number}" for number in range(2_000)]
    for count in (1, 3, 12):
        found = [partition_of(key, count) for key in keys]
        assert set(found) == set(range(count))
        assert found == [partition_of(key, count) for key in keys]


def test_any_text_has_a_partition() -> None:
    """A key with characters beyond ASCII is hashed as UTF-8."""
    from aiokafka.partitioner import murmur2 as theirs

    key = "acme/Füllstand-7 ☃"
    assert partition_of(key, 1_000) == (theirs(key.encode()) & 0x7FFFFFFF) % 1_000
    assert partition_of("", 7) == (theirs(b"") & 0x7FFFFFFF) % 7
