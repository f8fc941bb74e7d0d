"""Expert iteration: Anthony et al. 2017, arXiv:1705.08439, as STaR (arXiv:2203.14465) does it.

Differences from the papers:

- The expert is the policy itself, sampled several times and filtered by the reward; there is
  no search and no hint ("rationalization").
- Each iteration goes on from the present weights, with one optimizer and one schedule over all
  iterations; STaR starts each from the base model. The schedule is laid out for the most steps
  there can be, all responses right, so a decaying one ends early when fewer are kept.
- An iteration without a right response updates nothing, and says so in the log.
- The loss is that of ``sft``; rows are the sampled token ids as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from alignkit.engine.bookkeeping import Clock, seed_everything
from alignkit.engine.eval_table import EvalPlan
from alignkit.engine.evaluation import evaluator_for, mean_entropy, response_row, token_entropies
from alignkit.engine.learner import Learner
from alignkit.engine.rollouts import (
    PromptStream,
    Trajectory,
    check_groups,
    collect,
    serving,
    to_row,
    with_stops,
)
from alignkit.engine.statistics import prefixed, summary, update_means
from alignkit.engine.supervised import epoch_batches, nll, steps_in
from alignkit.protocols import (
    Dataset,
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
    from alignkit_algorithms.expert_iteration_table import ExpertIteration


@dataclass(kw_only=True)
class ExpertIterationRun:
    """The parts of an expert-iteration run, and its loop."""

    keys: ExpertIteration
    policy: Policy
    data: Dataset
    prompt: PromptTemplate
    reward: RewardFn
    normalizer: Normalizer
    backend: RolloutBackend
    optimizer: Optimizer
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
        learner = self._learner()
        questions = PromptStream(self.data, self.prompt, self.policy, seed=self.keys.seed)
        metrics = self.evaluator.run(run, 0) if self.evaluator else {}
        if metrics:
            run.log(0, metrics)
        for step in range(1, self.keys.n_steps + 1):
            clock = Clock()
            sampled = self._sample(questions, step, clock)  # fresh questions, G responses each
            kept = [t for t in sampled if t.reward.total >= self.keys.min_reward]
            metrics = self._metrics(sampled, kept, questions)  # entropy before the update
            with clock("update"):
                metrics = self._fit(learner, kept, step) | metrics
            with clock("sync"):
                self.backend.sync(self.policy)
            self._save_rollouts(run, step, sampled)
            metrics = prefixed("train", metrics) | clock.metrics()
            if self.evaluator and self.evaluator.plan.due(step, self.keys.n_steps):
                metrics |= self.evaluator.run(run, step)
            run.log(step, metrics)
            if not kept:
                run.say(f"step {step}: none of {len(sampled)} responses was right; no update")
        self.policy.save(run.dir / "final")
        return metrics

    def _learner(self) -> Learner:
        keys = self.keys
        most = steps_in(
            keys.rollout_batch_size, keys.train_batch_size, keys.epochs_per_rollout_batch
        )
        return Learner(
            self.policy,
            nll,
            self.normalizer,
            self.optimizer,
            token_budget=keys.token_budget,
            total_steps=keys.n_steps * most,
        )

    def _sample(self, questions: PromptStream, step: int, clock: Clock) -> list[Trajectory]:
        keys = self.keys
        sampled = collect(
            questions.take(keys.rollout_batch_size // keys.group_size),
            policy=self.policy,
            backend=self.backend,
            reward=self.reward,
            sampling=self._sampling(step),
            clock=clock,
        )
        check_groups(sampled, keys.group_size)
        return sampled

    def _sampling(self, step: int) -> Sampling:
        sampling = with_stops(self.backend.sampling, self.prompt)
        return replace(sampling, n=self.keys.group_size, seed=self.keys.seed, step=step)

    def _fit(self, learner: Learner, kept: Sequence[Trajectory], step: int) -> dict[str, float]:
        """Fine-tune on the right responses."""
        rows = [to_row(t) for t in kept]
        keys = self.keys
        if not rows:
            return {}
        batches = epoch_batches(len(rows), keys.train_batch_size, f"{keys.seed}/rows/{step}")
        count = steps_in(len(rows), keys.train_batch_size, keys.epochs_per_rollout_batch)
        updates = [learner.step([rows[i] for i in at]) for _, at in islice(batches, count)]
        return update_means(updates)

    def _metrics(
        self, sampled: Sequence[Trajectory], kept: Sequence[Trajectory], questions: PromptStream
    ) -> dict[str, float]:
        size, budget = self.keys.rollout_batch_size, self.keys.token_budget
        solved = len({t.group_id for t in kept})
        return {
            **summary(sampled),
            "token_entropy": mean_entropy(token_entropies(self.policy, sampled, budget)),
            "responses": len(sampled),
            "responses_trained_on": len(kept),
            "questions_solved": solved * self.keys.group_size / size,
            "prompts_skipped": questions.skipped,
        }

    def _save_rollouts(self, run: Run, step: int, trajectories: Sequence[Trajectory]) -> None:
        every = self.keys.save_rollouts_every
        if every and (step in (1, self.keys.n_steps) or step % every == 0):
            run.rows(step, "rollouts", [response_row(t) for t in trajectories])
