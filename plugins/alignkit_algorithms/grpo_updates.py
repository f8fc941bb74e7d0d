"""What GRPO learns from a rollout batch, and in which optimizer steps: Â, π_old, π_ref, updates.

B = responses of the rollout batch, T_i = tokens of response i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference import kl_estimate
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.sampling.rollouts import Trajectory, check_groups, to_row
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import Advantage

if TYPE_CHECKING:
    from alignkit_algorithms.grpo_table import Grpo

T = TypeVar("T")


class Do(Protocol):
    """Runs an update, or returns what it returned before the run was resumed."""

    def __call__(self, job: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Turns judged responses into rows, and rows into the updates of one rollout batch."""

    keys: Grpo
    learner: Learner
    advantage: Advantage
    reference: Reference | None
    frozen: FrozenPolicy | None
    """The reference's policy, if there is one."""

    def rows(self, trajectories: Sequence[Trajectory], step: int) -> list[TrainRow]:
        """Return a row for each response, with advantage and all log-probs it needs by now."""
        if not trajectories:
            return []
        rows = self._with_ref([to_row(t) for t in trajectories])
        if self.reference is None or self.reference.estimator != "k1":
            rows = self._with_advantages(rows, self._rewards(trajectories))
            return self._with_old(rows, step)
        rows = with_old(rows, range(len(rows)), self.learner.logprobs(rows))
        penalties = self.reference.beta * log_ratios(rows)
        return self._with_advantages(rows, self._rewards(trajectories) - penalties)

    def learn(
        self, do: Do, rows: list[TrainRow], step: int
    ) -> tuple[list[TrainRow], list[dict[str, float]]]:
        """Make the updates of a batch; return its rows, old log-probs filled in, and metrics.

        The first update sees its rows as π_old does, so its forward pass gives their log-probs.
        """
        batches = list(self.batches(len(rows), step))
        if len(batches) < 2 or all(rows[i].old_logprobs is not None for i in batches[0]):
            return rows, [do(partial(self.learner.step, [rows[i] for i in at])) for at in batches]
        first, *rest = batches
        metrics, old = do(partial(self.learner.first_step, [rows[i] for i in first]))
        filled = with_old(rows, first, old)
        later = [do(partial(self.learner.step, [filled[i] for i in at])) for at in rest]
        return filled, [metrics, *later]

    def batches(self, count: int, step: int) -> Iterator[list[int]]:
        """Yield which of ``count`` rows each optimizer step takes."""
        size = self.keys.train_batch_size
        for epoch in range(self.keys.epochs_per_rollout_batch):
            order = list(range(count))
            if self.keys.shuffle:
                order = shuffled(count, f"{self.keys.seed}/batches/{step}/{epoch}")
            for start in range(0, count, size):
                yield order[start : start + size]

    def _with_ref(self, rows: list[TrainRow]) -> list[TrainRow]:
        if self.frozen is None:
            return rows
        found = detached_logprobs(
            self.frozen,
            rows,
            token_budget=self.learner.token_budget,
            temperature=self.learner.temperature,
        )
        return [replace(row, ref_logprobs=ref) for row, ref in zip(rows, found, strict=True)]

    def _with_old(self, rows: list[TrainRow], step: int) -> list[TrainRow]:
        """Add π_old's log-probs to the rows that are not in the first update, before that."""
        first, *rest = self.batches(len(rows), step)
        later = sorted({i for at in rest for i in at} - set(first))
        if not later:
            return rows
        return with_old(rows, later, self.learner.old_logprobs([rows[i] for i in later]))

    def _rewards(self, trajectories: Sequence[Trajectory]) -> Tensor:
        check_groups(trajectories, self.keys.group_size)
        return torch.tensor([t.reward.total for t in trajectories], dtype=torch.float64)  # (B,)

    def _with_advantages(self, rows: list[TrainRow], rewards: Tensor) -> list[TrainRow]:
        advantages = self.advantage(rewards, group_size=self.keys.group_size)
        if advantages.shape != rewards.shape:
            raise ValueError(
                f"[advantage] returned shape {tuple(advantages.shape)} for {len(rewards)} rewards"
            )
        return [replace(row, advantage=float(a)) for row, a in zip(rows, advantages, strict=True)]


def with_old(
    rows: Sequence[TrainRow], at: Sequence[int], old: Sequence[Tensor | None]
) -> list[TrainRow]:
    """Return the rows, those in the places ``at`` with their old log-probs."""
    filled = list(rows)
    for i, logprobs in zip(at, old, strict=True):
        filled[i] = replace(rows[i], old_logprobs=logprobs)
    return filled


def log_ratios(rows: Sequence[TrainRow]) -> Tensor:
    """Return Σ_t (log π_old - log π_ref) of each response, (B,): what k1 penalises."""
    sums = [
        kl_estimate(row.old_logprobs, row.ref_logprobs, "k1").sum(dtype=torch.float64)
        for row in rows
        if row.old_logprobs is not None and row.ref_logprobs is not None
    ]
    return torch.stack(sums)
