"""Direct preference optimisation: Rafailov et al. 2023, arXiv:2305.18290.

The loss of a pair is -log σ(m), where the margin m = β [log πθ/πref (chosen) - log πθ/πref
(rejected)] sums over whole responses (eq. 7). Its gradient (section 4) is

    -β σ(-m) [∇ log πθ(chosen) - ∇ log πθ(rejected)],

which is that of a policy-gradient loss with advantages ±β σ(-m) and σ(-m) held fixed. So a step
first computes the margins without gradient and then hands the learner ordinary rows. That costs
a second forward pass and makes the step exact however the batch is cut: the two responses of a
pair need not be in the same micro-batch.

- A margin of exactly 0, as all are before the first step when the reference is the starting
  policy, counts as half a right preference.
- Pairs whose longer response does not fit the policy are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit.engine.evaluation.statistics import prefixed
from alignkit.engine.forward.frozen import detached_logprobs
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference import check_vocabularies
from alignkit.engine.learning.supervised import Epochs, column, steps_in, supervised_row
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.loop import Parts, Training
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Dataset,
    LossInputs,
    LossOutput,
    Policy,
    PromptTemplate,
    StepTotals,
)

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.dpo_table import Dpo


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt."""

    chosen: TrainRow
    rejected: TrainRow
    reference: float = 0.0
    """log πref(chosen) - log πref(rejected), in nats over the whole responses."""

    @property
    def length(self) -> int:
        """Tokens of the longer one, prompt included."""
        return max(self.chosen.length, self.rejected.length)


@dataclass(kw_only=True)
class DpoRun:
    """The parts of a DPO run, and its loop."""

    keys: Dpo
    parts: Parts
    data: Dataset
    prompt: PromptTemplate
    reference: Policy | None = None
    validation: Dataset | None = None

    def __post_init__(self) -> None:
        for data in (self.data, *([self.validation] if self.validation else [])):
            for i in range(len(data)):  # a missing column is found before anything is written
                column(data[i], self.keys.chosen_column)
                column(data[i], self.keys.rejected_column)

    def run(self, run: Run) -> Mapping[str, float]:
        """Train, validate and evaluate as planned, and leave the policy in ``final/``."""
        with self.parts.open(run) as training:
            return self._train(training)

    def _train(self, training: Training) -> dict[str, float]:
        pairs = self._pairs(self.data)  # under the starting weights, also when resuming
        held_out = self._pairs(self.validation) if self.validation else []
        if not pairs:
            raise AlignkitError("[data] holds no pair that fits the policy; nothing to train on")
        self.reference = None  # its log-probs are all that is needed of it
        size = self.keys.train_batch_size
        n_steps = self.keys.n_steps or steps_in(len(pairs), size, self.keys.epochs)
        training.run.say(f"{len(self.data)} pairs, {len(pairs)} of them fit; {n_steps} steps")
        learner = self._learner(n_steps)
        epochs = Epochs(len(pairs), size, f"{self.keys.seed}/pairs")
        counts = {"data/rows": float(len(self.data)), "data/used": float(len(pairs))}
        first = lambda: counts | self._validate(training, held_out)  # noqa: E731
        for step in training.steps(n_steps, learner, first=first):
            epoch, at = epochs.batch(step - 1)
            job = partial(self.update, learner, [pairs[i] for i in at])
            (update,) = training.updates([job])
            metrics = prefixed("train", {**update, "epoch": epoch, "pairs": len(at)})
            training.end_step(metrics | self._validate(training, held_out))
        return training.finish()

    def _learner(self, n_steps: int) -> Learner:
        return self.parts.learner(weighted_likelihood, pair_mean, total_steps=n_steps)

    def _pairs(self, data: Dataset) -> list[Pair]:
        """Tokenize, leave out what does not fit, and add the reference's log-probs."""
        keys, policy = self.keys, self.parts.policy
        pairs = []
        for i in range(len(data)):
            chosen, rejected = (
                supervised_row(data[i], column(data[i], name), self.prompt, policy, keys.append_eos)
                for name in (keys.chosen_column, keys.rejected_column)
            )
            pairs.append(Pair(chosen, rejected))
        pairs = [pair for pair in pairs if pair.length <= policy.max_length]
        if self.reference is not None:
            check_vocabularies(self.reference, policy)
        sums = whole_logprobs(self.reference or policy, pairs, keys.token_budget)
        return [replace(p, reference=c - r) for p, (c, r) in zip(pairs, sums, strict=True)]

    def update(self, learner: Learner, pairs: Sequence[Pair]) -> dict[str, float]:
        """Do one optimizer step on ``pairs``; return its metrics, those of before the step."""
        margins = self.margins(pairs)
        rows = []
        for pair, margin in zip(pairs, margins, strict=True):
            weight = self.keys.beta * float(torch.sigmoid(-margin))
            rows += [
                replace(pair.chosen, advantage=weight),
                replace(pair.rejected, advantage=-weight),
            ]
        return learner.step(rows) | preference_metrics(margins)

    def margins(self, pairs: Sequence[Pair]) -> Tensor:
        """Return β [log πθ/πref (chosen) - log πθ/πref (rejected)] of each pair, (P,) float64."""
        sums = whole_logprobs(self.parts.policy, pairs, self.keys.token_budget)
        gaps = [c - r - p.reference for (c, r), p in zip(sums, pairs, strict=True)]
        return self.keys.beta * torch.tensor(gaps, dtype=torch.float64)

    def _validate(self, training: Training, held_out: Sequence[Pair]) -> dict[str, float]:
        """Return the validation metrics, if they are due."""
        step = training.step
        if not held_out or (step % self.keys.validate_every and step != training.last):
            return {}
        with training.clock("validation"):
            found = preference_metrics(self.margins(held_out))
        return prefixed("eval", {**found, "n_pairs": len(held_out)})


def whole_logprobs(
    policy: Policy, pairs: Sequence[Pair], token_budget: int
) -> list[tuple[float, float]]:
    """Return the log-probs (nats) of each pair's whole chosen and rejected response."""
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    found = detached_logprobs(policy, rows, token_budget=token_budget, temperature=1.0)
    sums = [float(logprobs.sum(dtype=torch.float64)) for logprobs in found]
    return list(zip(sums[::2], sums[1::2], strict=True))


def preference_metrics(margins: Tensor) -> dict[str, float]:
    """Return the mean loss, the share of pairs ranked rightly and the mean margin of (P,)."""
    right = [1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins.tolist()]
    return {
        "loss": float(torch.nn.functional.softplus(-margins).mean()),
        "preference_accuracy": fmean(right),
        "margin": float(margins.mean()),
    }


def weighted_likelihood(x: LossInputs) -> LossOutput:
    """Return -A·log πθ, (B, T); with A = ±β σ(-m) its gradient is that of DPO."""
    return LossOutput(per_token=-x.advantages * x.logprobs)


def pair_mean(per_token: Tensor, mask: Tensor, /, *, totals: StepTotals) -> Tensor:
    """Sum over whole responses, mean over the step's pairs (two responses each)."""
    return torch.where(mask, per_token, 0).sum() / (totals.responses / 2)
