"""Rows that are asked in the order they stand in."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.protocols import Example


class InOrder(tuple[Example, ...]):
    """Examples asked from the first to the last, and then from the first again."""

    __slots__ = ()

    def choose(self, count: int, /, *, step: int, position: int) -> Sequence[int]:
        """Return the rows of the next ``count`` questions; ``position`` were asked before."""
        return [(position + i) % len(self) for i in range(count)]
