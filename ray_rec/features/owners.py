"""Which owner holds a user: told by the user's hash, and by the keys of what the user did.

Not by the partition: that of a user is another one when partitions are added or a producer hashes
otherwise, and the state knows users by their hash alone. So neither changes what is learned.
"""

import numpy as np

from ray_rec.features.arrays import AnyArray, Int64, UInt64, mix

_OWNER_BITS = np.uint64(0xFFFF)


def keys_of(user: UInt64, *parts: AnyArray) -> UInt64:
    """Return the key of each user's record: a hash of both whose low bits are the user's."""
    return (mix(user, *parts) & ~_OWNER_BITS) | (user & _OWNER_BITS)


def owner_of(hashes: UInt64, num_owners: int) -> Int64:
    """Return the owner, 0 … num_owners-1, of each user (by hash) or record (by key).

    >>> user = np.array([7, 2**40 + 8], np.uint64)
    >>> owner_of(user, 3).tolist(), owner_of(keys_of(user, np.array([1, 2])), 3).tolist()
    ([1, 2], [1, 2])
    """
    return ((hashes & _OWNER_BITS) % np.uint64(num_owners)).astype(np.int64)
