"""
Which number belongs to which id, in 24 to 48 bytes an id.
"""

from array import array

__all__ = ["IdTable"]


class IdTable:
    """
    Which number belongs to which id, for millions of ids.

    A dict of a million ids takes 150 to 200 MB. This keeps the 64-bit hash of
    an id and one 64-bit number, in 256 open-addressing tables (so that growing
    one never stops the event loop for more than a millisecond or two): 24 to
    48 MB a million. Two ids may share a hash: at a million ids the chance that
    any two do is 3 in 100 million, at a hundred million 1 in 4,000.
    """

    __slots__ = ("_count", "_keys", "_used", "_values")

    def __init__(self, expected: int = 0) -> None:
        # Room for the expected number at two thirds full, so that it need not grow.
        slots = 8
        while slots * 2 * 256 < expected * 3:
            slots *= 2
        self._keys = [array("Q", bytes(8 * slots)) for _ in range(256)]
        self._values = [array("Q", bytes(8 * slots)) for _ in range(256)]
        self._used = [0] * 256
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: str) -> int | None:
        """The number kept for this id, or None."""
        # Zero marks an empty slot. str caches its hash, so this is nearly free.
        hashed = hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1
        shard = hashed >> 56
        keys = self._keys[shard]
        mask = len(keys) - 1
        at = hashed & mask
        while found := keys[at]:
            if found == hashed:
                return self._values[shard][at]
            at = (at + 1) & mask
        return None

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def put(self, key: str, value: int) -> int | None:
        """Keep the number for this id; gives the one it replaces, or None."""
        hashed = hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1
        shard = hashed >> 56
        keys = self._keys[shard]
        mask = len(keys) - 1
        at = hashed & mask
        while found := keys[at]:
            if found == hashed:
                values = self._values[shard]
                old = values[at]
                values[at] = value
                return old
            at = (at + 1) & mask
        keys[at] = hashed
        self._values[shard][at] = value
        self._count += 1
        self._used[shard] = used = self._used[shard] + 1
        if used * 3 > mask * 2:
            self._grow(shard)
        return None

    def __setitem__(self, key: str, value: int) -> None:
        self.put(key, value)

    def add(self, key: str, value: int) -> int | None:
        """Keep the number unless the id has one already; gives that one, or None."""
        old = self.put(key, value)
        if old is not None:
            self.put(key, old)
        return old

    def _grow(self, shard: int) -> None:
        old_keys, old_values = self._keys[shard], self._values[shard]
        size = len(old_keys) * 2
        mask = size - 1
        keys, values = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        for hashed, value in zip(old_keys, old_values, strict=True):
            if hashed:
                at = hashed & mask
                while keys[at]:
                    at = (at + 1) & mask
                keys[at] = hashed
                values[at] = value
        self._keys[shard], self._values[shard] = keys, values
