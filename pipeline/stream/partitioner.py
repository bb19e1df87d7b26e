"""Which partition of a topic a key belongs to: the same for all clients that write there.

Kafka's own rule (Java's default for records with a key, librdkafka's `murmur2_random`, aiokafka's
default): murmur2 of the key's bytes, without its sign, modulo the number of partitions. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

SEED = 0x9747B28C
CONFLUENT = "murmur2_random"
"""The same rule by librdkafka's name: its option `partitioner`."""
KEYS_KEPT = 16_384
"""Of so many keys the hash is kept, at 220 bytes each."""

_M = 0x5BD1E995
_32 = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit hash, without a sign.

    As `org.apache.kafka.common.utils.Utils.murmur2`, which is Austin Appleby's MurmurHash2 with a
    seed of its own.
    """
    size = len(data)
    hashed = SEED ^ size
    words = size >> 2
    for k in unpack_from(f"<{words}I", data):
        mixed = k * _M & _32
        mixed ^= mixed >> 24
        hashed = (hashed * _M & _32) ^ (mixed * _M & _32)
    if size & 3:
        hashed ^= int.from_bytes(data[words << 2 :], "little")
        hashed = hashed * _M & _32
    hashed ^= hashed >> 13
    hashed = hashed * _M & _32
    return hashed ^ (hashed >> 15)


@lru_cache(KEYS_KEPT)
def _positive(key: str) -> int:
    # Keys of one device come again and again; a hash costs ten times what the look-up does.
    return murmur2(key_bytes(key)) & 0x7FFFFFFF


def key_bytes(key: str) -> bytes:
    """Return a key as it is written."""
    return key.encode("utf-8", "surrogatepass")


def partition_of(key: str, partitions: int) -> int:
    """Return the partition, from 0, of a key as it is written (UTF-8) to so many partitions."""
    return _positive(key) % partitions
