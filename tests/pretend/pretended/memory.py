"""Memory that tensors of the pretended device hold: each storage once, in blocks of 512 bytes."""

from __future__ import annotations

import weakref
from typing import Any

BLOCK = 512
"""Bytes that torch's CUDA allocator rounds up to."""
TOTAL = 80 * 2**30
"""Bytes that the device says it has."""


class Held:
    """Bytes held now, and the most since the last reset."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._names: dict[int, int] = {}
        self._named = 0

    def add(self, tensor: Any) -> None:
        """Count the storage of ``tensor``, once, for as long as it lives."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._sizes[key] = size
        self._named += 1
        self._names[key] = self._named
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def name(self, tensor: Any) -> tuple[int, int]:
        """Return what names the storage of ``tensor``, which no later one at its place shares."""
        key = tensor.untyped_storage()._cdata
        return key, self._names[key]

    def has(self, name: tuple[int, int]) -> bool:
        """Whether the storage of that name is still held."""
        return self._names.get(name[0]) == name[1]

    def _drop(self, key: int) -> None:
        self._names.pop(key, None)
        self.now -= self._sizes.pop(key, 0)

    def reset_peak(self, *_: Any) -> None:
        """Start to look for the most anew."""
        self.peak = self.now


class Pinned:
    """Storages in memory that the device can read while the host goes on."""

    def __init__(self) -> None:
        self._keys: set[int] = set()

    def add(self, tensor: Any) -> None:
        """Take the storage of ``tensor`` for pinned as long as it lives."""
        storage = tensor.untyped_storage()
        self._keys.add(storage._cdata)
        weakref.finalize(storage, self._keys.discard, storage._cdata)

    def __contains__(self, tensor: Any) -> bool:
        return tensor.untyped_storage()._cdata in self._keys


HELD = Held()
PINNED = Pinned()
