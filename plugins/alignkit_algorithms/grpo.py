"""Group-relative policy optimisation: Shao et al. 2024, DeepSeekMath, arXiv:2402.03300.

:meth:`GrpoRun._train` follows algorithm 1 of the paper, outcome supervision. Where it differs:

- The reward is a function, not a trained model, so the outer loop (iterations of the reward
  model and of the reference) is gone; the reference stays the one the run started with.
- There is no KL term and no reference unless the recipe has a ``[reference]`` table.
- Advantage, loss and normalizer are the recipe's. The paper's own are ``group_std``,
  ``grpo_clip`` and ``masked_mean``.
- π_old's log-probs come from the trainer, not from the rollout backend, so that the ratio
  measures updates and not the numerics of another engine. The first update of a rollout batch
  sees its rows as π_old does, so theirs are not computed twice.
- A rollout batch may be cut into several optimizer steps (``train_batch_size``): consecutive
  slices, as in the assignment this follows, or shuffled responses. Advantages are computed
  over whole groups before the cut, so a slice may split a group without changing them.
- ``drop_groups_without_signal`` with ``max_refills`` is dynamic sampling (DAPO,
  arXiv:2503.14476, section 3.2), except that refilling is bounded: a batch still short is
  trained on as it is, its last slice smaller, and logged as such.
- ``pipeline_depth`` = 1 samples each rollout batch while the one before it is learned from, one
  step off-policy; see ``alignkit.engine.sampling.ahead``.
- Questions come in epochs without replacement. Prompts too long to be answered are passed over
  and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from alignkit.engine.evaluation.statistics import prefixed, summary, update_means
from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.learning.correction import truncated_importance, with_gap
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference import freeze, kl_estimate, penalised
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.ahead import Ahead, staleness
from alignkit.engine.sampling.rollouts import Trajectory, check_groups, to_row
from alignkit.engine.sampling.sampler import Sampler
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.loop import Parts, Training, stateful
from alignkit.engine.training.saver import Stateful
from alignkit.protocols import Advantage, Dataset, LossType, Normalizer, Policy

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.grpo_table import Grpo

T = TypeVar("T")


class Do(Protocol):
    """Runs an update, or returns what it returned before the run was resumed."""

    def __call__(self, job: Callable[[], T], /) -> T: ...


@dataclass(kw_only=True)
class GrpoRun:
    """The parts of a GRPO run, and its loop."""

    keys: Grpo
    parts: Parts
    data: Dataset
    advantage: Advantage
    loss: LossType
    normalizer: Normalizer
    reference: Reference | None = None

    def run(self, run: Run) -> Mapping[str, float]:
        """Train, evaluate as planned, and leave the policy in ``final/``."""
        with self.parts.open(run) as training:
            return self._train(training)

    def _train(self, training: Training) -> dict[str, float]:
        sampler = Sampler(self.parts, self.data, group_size=self.keys.group_size)
        learner, frozen = self._learner(sampler.temperature), self._frozen()
        state = stateful(
            sampler=sampler,
            advantage=self.advantage,
            loss=self.loss,
            normalizer=self.normalizer,
        )
        if self.keys.pipeline_depth:
            return self._train_ahead(training, sampler, learner, frozen, state)
        for step in training.steps(self.keys.n_steps, learner, state=state):
            sampled, rows = training.once(lambda: self._batch(training, sampler, learner, frozen))
            rows, updates = self._learn(training.update, learner, rows, step)
            training.sync()  # π_old ← π_θ
            self._end_step(training, sampled, rows, updates, sampler)
        return training.finish()

    def _train_ahead(
        self,
        training: Training,
        sampler: Sampler,
        learner: Learner,
        frozen: FrozenPolicy | None,
        state: Mapping[str, Stateful],
    ) -> dict[str, float]:
        """Do as ``_train`` does, sampling each batch while the one before it is learned from.

        A step's updates and the batch sampled beside them are one whole: a signal waits for both.
        """
        sample = partial(self._sample, sampler)
        ahead = Ahead(self.parts.policy, sampler.backend, sample)
        for _ in training.steps(self.keys.n_steps, learner, state={**state, "ahead": ahead}):
            learner.pause = _never
            with training.run.signals.deferred():
                sampled, rows, updates, stale = training.once(
                    lambda: self._step_ahead(training, ahead, learner, frozen)
                )
            training.sync()
            more = {"staleness": stale}
            self._end_step(training, sampled, rows, updates, sampler, more)
        return training.finish()

    def _step_ahead(
        self, training: Training, ahead: Ahead, learner: Learner, frozen: FrozenPolicy | None
    ) -> tuple[list[Trajectory], list[TrainRow], list[dict[str, float]], float]:
        step, clock = training.step, training.clock
        sampled = ahead.take(step, clock)
        stale = staleness(sampled, self.parts.policy)
        last = step == self.keys.n_steps
        with nullcontext() if last else ahead.sampling(step + 1, clock), clock("update"):
            rows = self._rows(self._with_signal(sampled), learner, frozen, step)
            rows, updates = self._learn(_at_once, learner, rows, step)
        return sampled, rows, updates, stale

    def _learn(
        self, do: Do, learner: Learner, rows: list[TrainRow], step: int
    ) -> tuple[list[TrainRow], list[dict[str, float]]]:
        """Make the updates of a batch; return its rows, old log-probs filled in, and metrics.

        The first update sees its rows as π_old does, so its forward pass gives their log-probs.
        """
        batches = list(self._batches(len(rows), step))
        if len(batches) < 2 or all(rows[i].old_logprobs is not None for i in batches[0]):
            return rows, [do(partial(learner.step, [rows[i] for i in at])) for at in batches]
        first, *rest = batches
        metrics, old = do(partial(learner.first_step, [rows[i] for i in first]))
        filled = list(rows)
        for i, logprobs in zip(first, old, strict=True):
            filled[i] = replace(rows[i], old_logprobs=logprobs)
        return filled, [
            metrics,
            *(do(partial(learner.step, [filled[i] for i in at])) for at in rest),
        ]

    def _end_step(
        self,
        training: Training,
        sampled: Sequence[Trajectory],
        rows: Sequence[TrainRow],
        updates: Sequence[Mapping[str, float]],
        sampler: Sampler,
        more: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        training.save_rollouts(sampled, self.keys.save_rollouts_every)
        metrics = self._metrics(sampled, rows, updates, sampler.skipped)
        training.end_step(prefixed("train", {**metrics, **more}))

    def _learner(self, temperature: float) -> Learner:
        loss = with_gap(self.loss)
        if self.keys.importance_cap is not None:
            loss = truncated_importance(loss, self.keys.importance_cap)
        if self.reference:
            loss = penalised(loss, self.reference.beta, self.reference.estimator)
        return self.parts.learner(
            loss,
            self.normalizer,
            total_steps=self.keys.n_steps * self.keys.updates_per_batch,
            temperature=temperature,
        )

    def _frozen(self) -> FrozenPolicy | None:
        return freeze(self.reference, self.parts.policy) if self.reference else None

    def _batch(
        self, training: Training, sampler: Sampler, learner: Learner, frozen: FrozenPolicy | None
    ) -> tuple[list[Trajectory], list[TrainRow]]:
        """Return a rollout batch, and the rows with signal, ready to be learned from."""
        clock, policy = training.clock, self.parts.policy
        sampled = self._sample(sampler, training.step, clock, policy)  # q ~ P(Q), o_i ~ π_old, r_i
        with training.clock("update"):
            kept = self._with_signal(sampled)
            rows = self._rows(kept, learner, frozen, training.step)  # Â_i, π_old, π_ref
        return sampled, rows

    def _sample(
        self, sampler: Sampler, step: int, clock: Clock, policy: Policy
    ) -> list[Trajectory]:
        """Sample a rollout batch; refill it where it brings no signal and the recipe asks."""
        trajectories: list[Trajectory] = []
        for _ in range(1 + self.keys.max_refills):
            lacking = self.keys.rollout_batch_size - len(self._with_signal(trajectories))
            if lacking <= 0:
                break
            trajectories += sampler.draw(
                lacking,
                step=step,
                clock=clock,
                first_group=len(trajectories) // self.keys.group_size,
                policy=policy,
            )
        return trajectories

    def _groups(self, trajectories: Sequence[Trajectory]) -> list[Sequence[Trajectory]]:
        size = self.keys.group_size
        return [trajectories[i : i + size] for i in range(0, len(trajectories), size)]

    def _with_signal(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        """Drop groups whose rewards are all equal, if the recipe says so."""
        if not self.keys.drop_groups_without_signal:
            return trajectories
        return [t for group in self._groups(trajectories) if has_signal(group) for t in group]

    def _rows(
        self,
        trajectories: Sequence[Trajectory],
        learner: Learner,
        frozen: FrozenPolicy | None,
        step: int,
    ) -> list[TrainRow]:
        """Turn judged responses into training rows with advantages and all log-probs."""
        if not trajectories:
            return []
        rows = [to_row(t) for t in trajectories]
        if frozen:
            ref = detached_logprobs(
                frozen, rows, token_budget=learner.token_budget, temperature=learner.temperature
            )
            rows = [replace(row, ref_logprobs=r) for row, r in zip(rows, ref, strict=True)]
        in_reward = self.reference is not None and self.reference.estimator == "k1"
        if in_reward:
            old = learner.logprobs(rows)
            rows = [replace(row, old_logprobs=o) for row, o in zip(rows, old, strict=True)]
        advantages = self._advantages(trajectories, self._penalties(rows) if in_reward else None)
        rows = [replace(row, advantage=float(a)) for row, a in zip(rows, advantages, strict=True)]
        return rows if in_reward else self._with_old(rows, learner, step)

    def _with_old(self, rows: list[TrainRow], learner: Learner, step: int) -> list[TrainRow]:
        """Add π_old's log-probs to the rows that are not in the first update, before that."""
        first, *rest = self._batches(len(rows), step)
        later = sorted({i for at in rest for i in at} - set(first))
        if not later:
            return rows
        old = learner.old_logprobs([rows[i] for i in later])
        return with_old(rows, later, old)

    def _penalties(self, rows: Sequence[TrainRow]) -> Tensor:
        """Return β · Σ_t (log π_old - log π_ref) of each response, (B,): the k1 penalty."""
        beta = self.reference.beta if self.reference else 0.0
        sums = [
            kl_estimate(row.old_logprobs, row.ref_logprobs, "k1").sum(dtype=torch.float64)
            for row in rows
            if row.old_logprobs is not None and row.ref_logprobs is not None
        ]
        return beta * torch.stack(sums)

    def _advantages(self, trajectories: Sequence[Trajectory], penalties: Tensor | None) -> Tensor:
        check_groups(trajectories, self.keys.group_size)
        rewards = torch.tensor([t.reward.total for t in trajectories], dtype=torch.float64)  # (B,)
        if penalties is not None:
            rewards = rewards - penalties
        advantages = self.advantage(rewards, group_size=self.keys.group_size)
        if advantages.shape != rewards.shape:
            raise ValueError(
                f"[advantage] returned shape {tuple(advantages.shape)} for {len(rewards)} rewards"
            )
        return advantages

    def _batches(self, count: int, step: int) -> Iterator[list[int]]:
        """Yield which of ``count`` rows each optimizer step takes."""
        size = self.keys.train_batch_size
        for epoch in range(self.keys.epochs_per_rollout_batch):
            order = list(range(count))
            if self.keys.shuffle:
                order = shuffled(count, f"{self.keys.seed}/batches/{step}/{epoch}")
            for start in range(0, count, size):
                yield order[start : start + size]

    def _metrics(
        self,
        sampled: Sequence[Trajectory],
        kept: Sequence[TrainRow],
        updates: Sequence[Mapping[str, float]],
        skipped: int,
    ) -> dict[str, float]:
        groups = self._groups(sampled)
        return {
            **update_means(updates),
            **summary(sampled),
            "groups_without_signal": sum(not has_signal(g) for g in groups) / len(groups),
            "responses": len(sampled),
            "responses_trained_on": len(kept),
            "updates": len(updates),
            "prompts_skipped": skipped,
        }


def _at_once(job: Callable[[], T]) -> T:
    return job()


def _never() -> None:
    """Let no signal in."""


def with_old(
    rows: Sequence[TrainRow], at: Sequence[int], old: Sequence[Tensor | None]
) -> list[TrainRow]:
    """Return the rows, those in the places ``at`` with their old log-probs."""
    filled = list(rows)
    for i, logprobs in zip(at, old, strict=True):
        filled[i] = replace(rows[i], old_logprobs=logprobs)
    return filled


def has_signal(group: Sequence[Trajectory]) -> bool:
    """Whether the responses of a group differ in reward; else every advantage is zero."""
    return len({t.reward.total for t in group}) > 1
