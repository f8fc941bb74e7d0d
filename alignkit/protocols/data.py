"""Where questions come from and how they become prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from alignkit.protocols.examples import Example
    from alignkit.protocols.rewards import Reward


class Dataset(Protocol):
    """A finite, ordered collection of examples. Optional: :class:`Orders`, :class:`Observes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@runtime_checkable
class Orders(Protocol):
    """A dataset that chooses which questions come next: a fixed order, a curriculum.

    Whatever changes between calls belongs in ``state_dict``, see :class:`Stateful`.
    """

    def choose(self, count: int, /, *, step: int, position: int) -> Sequence[int]:
        """Return the row indices of the next ``count`` questions; a row may be repeated.

        ``step`` is the training step they are for, counted from 1; ``position`` is how many
        questions were chosen before.
        """
        ...


@runtime_checkable
class Observes(Protocol):
    """A dataset that is informed how its questions were answered, as for an adaptive curriculum."""

    def observe(self, rows: Sequence[int], rewards: Sequence[Reward], /) -> None:
        """Receive one reward per response; ``rows`` are the row indices of their questions.

        Called after each round of sampling, in the order of sampling.
        """
        ...


class PromptTemplate(Protocol):
    """Turns a question into prompt text. Optional: ``Converses`` of :mod:`alignkit.dialogues`."""

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a response."""
        ...

    def render(self, question: str) -> str:
        """Return the prompt, which contains the question verbatim."""
        ...
