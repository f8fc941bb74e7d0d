"""Questions asked in the order of their rows."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.protocols import Example


class InOrder:
    """Examples used from the first to the last, and then from the first again."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> Example:
        return self._examples[index]

    def choose(self, count: int, /, *, step: int, position: int) -> Sequence[int]:
        """Return the rows of the next ``count`` questions; ``position`` were asked before."""
        return [(position + i) % len(self) for i in range(count)]
