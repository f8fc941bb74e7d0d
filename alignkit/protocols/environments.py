"""What answers the policy turn by turn; episodes are in :mod:`alignkit.episodes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from alignkit.episodes import Episode, EpisodeLimits
    from alignkit.protocols.examples import Example


class Environment(Protocol):
    """Answers the policy turn by turn, in episodes; see :mod:`alignkit.episodes`."""

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a turn."""
        ...

    @property
    def limits(self) -> EpisodeLimits:
        """Where episodes are cut, from the recipe's table."""
        ...

    def open(self, example: Example, /, *, seed: int) -> Episode:
        """Begin an episode; equal examples and seeds give episodes that behave the same.

        The episodes of a group share both. The episodes of a batch are opened and stepped at the
        same time, on several threads.
        """
        ...
