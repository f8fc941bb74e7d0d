"""Group-relative policy optimisation: Shao et al. 2024, DeepSeekMath, arXiv:2402.03300.

:meth:`GrpoRun._train` follows algorithm 1 of the paper, outcome supervision. Where it differs:

- The reward is a function, not a trained model, so the outer loop (iterations of the reward
  model and of the reference) is gone; the reference stays the one the run started with.
- There is no KL term and no reference unless the recipe has a ``[reference]`` table.
- Advantage, loss and normalizer are the recipe's. The paper's own are ``group_std``,
  ``grpo_clip`` and ``masked_mean``.
- π_old's log-probs come from the trainer, not from the rollout backend, so that the ratio
  measures updates and not the numerics of another engine. With one update per rollout batch
  they equal the current ones and are not computed twice.
- A rollout batch may be cut into several optimizer steps (``train_batch_size``): consecutive
  slices, as in the assignment this follows, or shuffled responses. Advantages are computed
  over whole groups before the cut, so a slice may split a group without changing them.
- ``drop_groups_without_signal`` with ``max_refills`` is dynamic sampling (DAPO,
  arXiv:2503.14476, section 3.2), except that refilling is bounded: a batch still short is
  trained on as it is, its last slice smaller, and logged as such.
- Questions come in epochs without replacement. Prompts too long to be answered are passed over
  and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit.engine.bookkeeping import Clock, seed_everything
from alignkit.engine.correction import truncated_importance, with_gap
from alignkit.engine.eval_table import EvalPlan
from alignkit.engine.evaluation import evaluator_for, response_row
from alignkit.engine.learner import Learner
from alignkit.engine.reference import (
    FrozenPolicy,
    detached_logprobs,
    freeze,
    kl_estimate,
    penalised,
)
from alignkit.engine.reference_table import Reference
from alignkit.engine.rollouts import (
    PromptStream,
    Trajectory,
    check_groups,
    collect,
    serving,
    shuffled,
    to_row,
    with_stops,
)
from alignkit.engine.statistics import prefixed, summary, update_means
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import (
    Advantage,
    Dataset,
    LossType,
    Normalizer,
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Sampling,
    Tracker,
)

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.grpo_table import Grpo


@dataclass(kw_only=True)
class GrpoRun:
    """The parts of a GRPO run, and its loop."""

    keys: Grpo
    policy: Policy
    data: Dataset
    prompt: PromptTemplate
    reward: RewardFn
    advantage: Advantage
    loss: LossType
    normalizer: Normalizer
    backend: RolloutBackend
    optimizer: Optimizer
    reference: Reference | None = None
    plan: EvalPlan | None = None
    trackers: Sequence[Tracker] = field(default=())

    def __post_init__(self) -> None:
        self.evaluator = evaluator_for(
            self.plan,
            policy=self.policy,
            backend=self.backend,
            prompt=self.prompt,
            reward=self.reward,
            token_budget=self.keys.token_budget,
        )

    def run(self, run: Run) -> Mapping[str, float]:
        """Train, evaluate as planned, and leave the policy in ``final/``."""
        run.attach(self.trackers)
        seed_everything(self.keys.seed)
        with serving(self.backend, self.policy):
            return self._train(run)

    def _train(self, run: Run) -> dict[str, float]:
        learner, frozen = self._learner(), self._frozen()
        questions = PromptStream(self.data, self.prompt, self.policy, seed=self.keys.seed)
        metrics = self.evaluator.run(run, 0) if self.evaluator else {}
        if metrics:
            run.log(0, metrics)
        for step in range(1, self.keys.n_steps + 1):
            clock = Clock()
            sampled = self._sample(questions, step, clock)  # q ~ P(Q), o_i ~ π_old(·|q), r_i
            kept = self._with_signal(sampled)
            with clock("update"):
                rows = self._rows(kept, learner, frozen)  # Â_i, log π_old, log π_ref
                updates = [learner.step(batch) for batch in self._batches(rows, step)]
            with clock("sync"):
                self.backend.sync(self.policy)  # π_old ← π_θ
            self._save_rollouts(run, step, sampled)
            metrics = prefixed("train", self._metrics(sampled, kept, updates, questions))
            metrics |= clock.metrics()
            if self.evaluator and self.evaluator.plan.due(step, self.keys.n_steps):
                metrics |= self.evaluator.run(run, step)
            run.log(step, metrics)
        self.policy.save(run.dir / "final")
        return metrics

    def _learner(self) -> Learner:
        loss = with_gap(self.loss)
        if self.keys.importance_cap is not None:
            loss = truncated_importance(loss, self.keys.importance_cap)
        if self.reference:
            loss = penalised(loss, self.reference.beta, self.reference.estimator)
        return Learner(
            self.policy,
            loss,
            self.normalizer,
            self.optimizer,
            token_budget=self.keys.token_budget,
            total_steps=self.keys.n_steps * self.keys.updates_per_batch,
            temperature=self.backend.sampling.temperature,
        )

    def _frozen(self) -> FrozenPolicy | None:
        return freeze(self.reference, self.policy) if self.reference else None

    def _sample(self, questions: PromptStream, step: int, clock: Clock) -> list[Trajectory]:
        """Sample a rollout batch; refill it where it brings no signal and the recipe asks."""
        trajectories: list[Trajectory] = []
        wanted = self.keys.rollout_batch_size
        for _ in range(1 + self.keys.max_refills):
            lacking = wanted - len(self._with_signal(trajectories))
            if lacking <= 0:
                break
            trajectories += collect(
                questions.take(lacking // self.keys.group_size),
                policy=self.policy,
                backend=self.backend,
                reward=self.reward,
                sampling=self._sampling(step),
                clock=clock,
                first_group=len(trajectories) // self.keys.group_size,
            )
        return trajectories

    def _sampling(self, step: int) -> Sampling:
        sampling = with_stops(self.backend.sampling, self.prompt)
        return replace(sampling, n=self.keys.group_size, seed=self.keys.seed, step=step)

    def _groups(self, trajectories: Sequence[Trajectory]) -> list[Sequence[Trajectory]]:
        size = self.keys.group_size
        return [trajectories[i : i + size] for i in range(0, len(trajectories), size)]

    def _with_signal(self, trajectories: list[Trajectory]) -> list[Trajectory]:
        """Drop groups whose rewards are all equal, if the recipe says so."""
        if not self.keys.drop_groups_without_signal:
            return trajectories
        return [t for group in self._groups(trajectories) if has_signal(group) for t in group]

    def _rows(
        self, trajectories: Sequence[Trajectory], learner: Learner, frozen: FrozenPolicy | None
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
        if self.keys.updates_per_batch > 1 or in_reward:
            old = learner.logprobs(rows)
            rows = [replace(row, old_logprobs=o) for row, o in zip(rows, old, strict=True)]
        advantages = self._advantages(trajectories, self._penalties(rows) if in_reward else None)
        return [replace(row, advantage=float(a)) for row, a in zip(rows, advantages, strict=True)]

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

    def _batches(self, rows: Sequence[TrainRow], step: int) -> Iterator[list[TrainRow]]:
        """Yield the rows of each optimizer step."""
        size = self.keys.train_batch_size
        for epoch in range(self.keys.epochs_per_rollout_batch):
            order = list(range(len(rows)))
            if self.keys.shuffle:
                order = shuffled(len(rows), f"{self.keys.seed}/batches/{step}/{epoch}")
            for start in range(0, len(rows), size):
                yield [rows[i] for i in order[start : start + size]]

    def _save_rollouts(self, run: Run, step: int, trajectories: Sequence[Trajectory]) -> None:
        every = self.keys.save_rollouts_every
        if every and (step in (1, self.keys.n_steps) or step % every == 0):
            run.rows(step, "rollouts", [response_row(t) for t in trajectories])

    def _metrics(
        self,
        sampled: Sequence[Trajectory],
        kept: Sequence[Trajectory],
        updates: Sequence[Mapping[str, float]],
        questions: PromptStream,
    ) -> dict[str, float]:
        groups = self._groups(sampled)
        return {
            **update_means(updates),
            **summary(sampled),
            "groups_without_signal": sum(not has_signal(g) for g in groups) / len(groups),
            "responses": len(sampled),
            "responses_trained_on": len(kept),
            "updates": len(updates),
            "prompts_skipped": questions.skipped,
        }


def has_signal(group: Sequence[Trajectory]) -> bool:
    """Whether the responses of a group differ in reward; else every advantage is zero."""
    return len({t.reward.total for t in group}) > 1
