"""Which partition a key belongs to: murmur2, as Kafka's Java clients compute it by default."""

from collections.abc import Sequence
from functools import lru_cache

from ray_rec.events.schema import Record

_MASK = 0xFFFFFFFF
_MIX = 0x5BD1E995


@lru_cache(maxsize=1 << 18)
def murmur2(key: bytes) -> int:
    """Kafka's murmur2 as an unsigned 32-bit integer (org.apache.kafka.common.utils.Utils).

    >>> murmur2(b"21") - 2**32
    -973932308
    """
    length = len(key)
    whole = length & ~3
    h = 0x9747B28C ^ length
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * _MIX & _MASK
        k = (k ^ k >> 24) * _MIX & _MASK
        h = (h * _MIX & _MASK) ^ k
    if length > whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * _MIX & _MASK
    h = (h ^ h >> 13) * _MIX & _MASK
    return h ^ h >> 15


def partition_of(key: bytes | None, num_partitions: int) -> int:
    """Return the partition of a key; records without one go to partition 0.

    >>> [partition_of(b"user", n) for n in (1, 4)]
    [0, 2]
    """
    if num_partitions == 1 or key is None:
        return 0
    return (murmur2(key) & 0x7FFFFFFF) % num_partitions


def by_partition(records: Sequence[Record], num_partitions: int) -> dict[int, Sequence[Record]]:
    """Split records by partition, keeping their order."""
    if num_partitions == 1:
        return {0: records}
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(partition_of(record.key, num_partitions), []).append(record)
    return dict(groups)
