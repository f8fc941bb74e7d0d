"""A step's rows cut into micro-batches, and the gradient that one of them adds.

B = rows of the micro-batch, T = response tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignkit.engine.asking import blamed
from alignkit.engine.forward.logprobs import cut, response_logprobs
from alignkit.engine.forward.oom import advice_on_oom
from alignkit.engine.learning.inputs import loss_inputs
from alignkit.engine.learning.objective import Objective
from alignkit.engine.learning.step_metrics import StepMetrics
from alignkit.engine.ranks.shards import shards_of
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import Policy, StepTotals


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows that are computed together: all with an advantage, or all without."""

    at: list[int]
    """Indices of the rows in the step."""
    rows: list[TrainRow]


def micro_batches_of(
    policy: Policy, rows: Sequence[TrainRow], token_budget: int, whole_budget: int = 0
) -> list[MicroBatch]:
    """Cut rows that have tokens into micro-batches, separately those without advantage.

    The budgets are those of ``cut``.
    """
    batches = []
    for has_signal in (True, False):
        at = [i for i, row in enumerate(rows) if row.trained_ids and row.pushes is has_signal]
        cuts = cut(policy, [rows[i] for i in at], token_budget, whole_budget)
        batches += [[at[j] for j in part] for part in cuts]
    return [MicroBatch(at, [rows[i] for i in at]) for at in batches]


@dataclass(slots=True)
class Accumulation:
    """The gradients of a step's micro-batches, which add up in the policy's ``grad``."""

    policy: Policy
    objective: Objective
    totals: StepTotals
    measured: StepMetrics
    attached: bool
    """Whether a loss with a gradient was seen, in this step or one before."""

    def add(self, rows: Sequence[TrainRow]) -> Tensor:
        """Add the gradient of one micro-batch to ``grad``; return its log-probs, (B, T)."""
        logprobs, entropy, mask = response_logprobs(
            self.policy, rows, temperature=self.objective.temperature, with_entropy=True
        )
        idle = not rows[0].pushes  # then all of the micro-batch are
        leaf = logprobs.detach().requires_grad_()  # (B, T)
        inputs = loss_inputs(rows, leaf, mask)
        if any(row.old_logprobs is not None for row in rows) and inputs.old_logprobs is not None:
            self.measured.compare(rows, leaf.detach(), inputs.old_logprobs, idle=idle)
        surrogate, normalizer = self.objective.surrogate, self.objective.normalizer
        with blamed("loss", surrogate.loss):
            output = surrogate.loss(inputs)
        if output.per_token.shape != mask.shape:
            raise ValueError(
                f"the loss returned per_token of shape {tuple(output.per_token.shape)}; it must "
                f"be that of the log-probs, {tuple(mask.shape)}"
            )
        with blamed("normalizer", normalizer):
            scalar = normalizer(output.per_token, mask, totals=self.totals)
        self._refuse_detached(scalar, idle=idle)
        grad = _gradient(scalar, leaf, mask)
        zero = idle and surrogate.zero_without_advantage
        cut_up = shards_of(self.policy.model) is not None  # then passes are all ranks'
        if cut_up or _may_push(grad, zero=zero):
            with advice_on_oom(self.policy, rows):
                logprobs.backward(grad)  # type: ignore[no-untyped-call]
        found = {"token_entropy": entropy, **output.metrics}
        self.measured.add(scalar, found, mask, idle=idle)
        return leaf.detach()

    def _refuse_detached(self, scalar: Tensor, *, idle: bool) -> None:
        """Raise AlignkitError if the first loss on rows with an advantage has no gradient."""
        self.attached = self.attached or scalar.requires_grad
        if not self.attached and not idle:
            raise AlignkitError(
                "the loss returned numbers without a gradient: nothing would be trained; compute "
                "per_token from x.logprobs, without detach(), item() or torch.no_grad() on the way"
            )


def _may_push(grad: Tensor, *, zero: bool) -> bool:
    """Whether ``grad`` (B, T) may move weights; ``zero`` says that it is known not to.

    NaN may: it must reach the check before the step. On CUDA the values are not read: the host
    would wait for all queued work, which takes longer than it saves.
    """
    return not zero if grad.device.type == "cuda" else bool(grad.any())


def _gradient(scalar: Tensor, leaf: Tensor, mask: Tensor) -> Tensor:
    """Return d scalar / d log-probs, (B, T), with nothing at padding."""
    if not scalar.requires_grad:
        return torch.zeros_like(leaf)
    (grad,) = torch.autograd.grad(scalar, leaf, allow_unused=True, materialize_grads=True)
    return torch.where(mask, grad, 0)
