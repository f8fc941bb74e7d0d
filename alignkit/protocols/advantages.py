"""How rewards become advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.protocols.examples import Example
    from alignkit.protocols.rollouts import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledBatch:
    """The responses of a step, group by group, as passed to an advantage that :class:`Weighs`."""

    rewards: Tensor
    """(B,) float64, what is maximised: reward totals minus the penalty of a k1 reference."""
    group_sizes: Sequence[int]
    """Number of responses in each group, which may differ; groups are consecutive."""
    lengths: Tensor
    """(B,) int64 T_i, the number of tokens of each response that are trained on."""
    responses: Sequence[Response]
    """The texts, which also hold their tokens, log-probs and how they ended."""
    examples: Sequence[Example]
    """The question of each response. After a run is resumed within a step, ``extra`` columns that
    JSON cannot hold are missing."""
    parts: Sequence[Mapping[str, float]]
    """Named components of each reward, as in :attr:`Reward.parts`."""
    step: int
    """The training step that the responses were sampled for, counted from 1."""


class Advantage(Protocol):
    """Turns rewards into advantages. Groups are consecutive blocks of ``group_size``.

    Optional: :class:`Weighs`.
    """

    def __call__(self, rewards: Tensor, /, *, group_size: int) -> Tensor:
        """Map (B,) to (B,)."""
        ...


@runtime_checkable
class Weighs(Protocol):
    """An advantage that uses more than rewards: lengths, texts, questions, the step."""

    def weigh(self, batch: SampledBatch, /) -> Tensor | Sequence[Tensor]:
        """Return (B,), or a (T_i,) tensor for each response, one number per trained token.

        Sampling algorithms call this instead of the advantage itself.
        """
        ...


@runtime_checkable
class Groups(Protocol):
    """Parameters of an advantage that tell, before it is built, which groups it can compare."""

    def group_problem(self, group_size: int, /) -> str:
        """Return what is wrong with groups of ``group_size`` responses, "" if nothing is."""
        ...
