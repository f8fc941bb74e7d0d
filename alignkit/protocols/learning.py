"""Losses over tokens and over pairs, how they are normalised, and what minimises them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """One micro-batch as the loss sees it. Padding positions hold zeros and mask False."""

    logprobs: Tensor
    """(B, T) log πθ(o_t | q, o_<t); carries the gradient."""
    mask: Tensor
    """(B, T) bool, True at response tokens."""
    advantages: Tensor
    """(B, 1), one for all tokens of a response, or (B, T), one for each; no gradient."""
    old_logprobs: Tensor | None = None
    """(B, T) under the policy at the start of the rollout batch's updates, no gradient."""
    ref_logprobs: Tensor | None = None
    """(B, T) under the frozen reference policy, no gradient."""
    rollout_logprobs: Tensor | None = None
    """(B, T) as reported by the rollout backend, no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """What a loss returns."""

    per_token: Tensor
    """(B, T) loss to MINIMISE, before masking and normalisation."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """(B, T) or (B, 1) tensors, detached; logged as means over the step's response tokens."""


class LossType(Protocol):
    """Policy-gradient surrogate: turns log-probs and advantages into a per-token loss."""

    def __call__(self, inputs: LossInputs, /) -> LossOutput: ...


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Counts over the WHOLE optimizer step, however it is split into micro-batches (and ranks)."""

    responses: int
    """Responses in the step, including those without a token."""
    tokens: int
    """Unmasked response tokens in the step."""


class Normalizer(Protocol):
    """Turns per-token losses into the scalar that is differentiated.

    It must be additive: the sum over any partition of the step into micro-batches, each
    called with the same ``totals``, equals the value for the step as one batch.
    """

    def __call__(self, per_token: Tensor, mask: Tensor, /, *, totals: StepTotals) -> Tensor:
        """Map (B, T) and (B, T) bool to a scalar."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePairs:
    """The P pairs of a step as a preference loss sees them; all tensors are (P,) float64."""

    chosen: Tensor
    """log πθ of the whole preferred response, in nats; carries the gradient."""
    rejected: Tensor
    """log πθ of the whole rejected response, in nats; carries the gradient."""
    chosen_tokens: Tensor
    """Number of tokens in the preferred response."""
    rejected_tokens: Tensor
    """Number of tokens in the rejected response."""
    ref_chosen: Tensor | None = None
    """log πref of the preferred response, no gradient."""
    ref_rejected: Tensor | None = None
    """log πref of the rejected response, no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceOutput:
    """What a preference loss returns for P pairs."""

    loss: Tensor
    """(P,) loss to MINIMISE; the algorithm takes the mean over the step's pairs."""
    margin: Tensor
    """(P,) above 0 where the pair is ranked correctly; detached."""


class PreferenceLoss(Protocol):
    """Turns pairs of a preferred and a rejected response into one loss per pair."""

    def __call__(self, pairs: PreferencePairs, /) -> PreferenceOutput:
        """Return loss and margin of each pair, which must not depend on the other pairs."""
        ...


class Optimizer(Protocol):
    """Creates the torch optimizer and its learning-rate schedule. Optional ability:
    ``Looks`` of :mod:`alignkit.abilities`."""

    @property
    def max_grad_norm(self) -> float:
        """Gradients with a larger global L2 norm are scaled down to this norm; ``inf`` = never."""
        ...

    def start(
        self, parameters: Iterable[nn.Parameter], *, total_steps: int
    ) -> tuple[TorchOptimizer, LRScheduler]:
        """Return the optimizer and a schedule to be stepped once per optimizer step."""
        ...
