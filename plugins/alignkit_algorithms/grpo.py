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

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from alignkit.engine.evaluation.statistics import prefixed, summary, update_means
from alignkit.engine.learning.correction import truncated_importance, with_gap
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference import freeze, penalised
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.ahead import Ahead, staleness
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.sampling.sampler import Sampler
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.loop import Parts, Training, stateful
from alignkit.engine.training.saver import Stateful
from alignkit.protocols import Advantage, Dataset, LossType, Normalizer, Policy
from alignkit_algorithms.grpo_updates import Updates

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.grpo_table import Grpo

T = TypeVar("T")


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
        learner = self._learner(sampler.temperature)
        updates = self._updates(learner)
        state = stateful(
            sampler=sampler,
            advantage=self.advantage,
            loss=self.loss,
            normalizer=self.normalizer,
        )
        if self.keys.pipeline_depth:
            return self._train_ahead(training, sampler, updates, state)
        for step in training.steps(self.keys.n_steps, learner, state=state):
            sampled, rows = training.once(lambda: self._batch(training, sampler, updates))
            rows, done = updates.learn(training.update, rows, step)
            training.sync()  # π_old ← π_θ
            self._end_step(training, sampled, rows, done, sampler)
        return training.finish()

    def _train_ahead(
        self,
        training: Training,
        sampler: Sampler,
        updates: Updates,
        state: Mapping[str, Stateful],
    ) -> dict[str, float]:
        """Do as ``_train`` does, sampling each batch while the one before it is learned from.

        A step's updates and the batch sampled beside them are one whole: a signal waits for both.
        """
        learner, sample = updates.learner, partial(self._sample, sampler)
        ahead = Ahead(self.parts.policy, sampler.backend, sample)
        for _ in training.steps(self.keys.n_steps, learner, state={**state, "ahead": ahead}):
            learner.pause = _never
            with training.run.signals.deferred():
                sampled, rows, done, stale = training.once(
                    lambda: self._step_ahead(training, ahead, updates)
                )
            training.sync()
            more = {"staleness": stale}
            self._end_step(training, sampled, rows, done, sampler, more)
        return training.finish()

    def _step_ahead(
        self, training: Training, ahead: Ahead, updates: Updates
    ) -> tuple[list[Trajectory], list[TrainRow], list[dict[str, float]], float]:
        step, clock = training.step, training.clock
        sampled = ahead.take(step, clock)
        stale = staleness(sampled, self.parts.policy)
        last = step == self.keys.n_steps
        with nullcontext() if last else ahead.sampling(step + 1, clock), clock("update"):
            rows = updates.rows(self._with_signal(sampled), step)
            rows, done = updates.learn(_at_once, rows, step)
        return sampled, rows, done, stale

    def _end_step(
        self,
        training: Training,
        sampled: Sequence[Trajectory],
        rows: Sequence[TrainRow],
        done: Sequence[Mapping[str, float]],
        sampler: Sampler,
        more: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        training.save_rollouts(sampled, self.keys.save_rollouts_every)
        metrics = self._metrics(sampled, rows, done, sampler.skipped)
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

    def _updates(self, learner: Learner) -> Updates:
        return Updates(
            keys=self.keys,
            learner=learner,
            advantage=self.advantage,
            reference=self.reference,
            frozen=freeze(self.reference, self.parts.policy) if self.reference else None,
        )

    def _batch(
        self, training: Training, sampler: Sampler, updates: Updates
    ) -> tuple[list[Trajectory], list[TrainRow]]:
        """Return a rollout batch, and the rows with signal, ready to be learned from."""
        clock, policy = training.clock, self.parts.policy
        sampled = self._sample(sampler, training.step, clock, policy)  # q ~ P(Q), o_i ~ π_old, r_i
        with training.clock("update"):
            rows = updates.rows(self._with_signal(sampled), training.step)  # Â_i, π_old, π_ref
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

    def _metrics(
        self,
        sampled: Sequence[Trajectory],
        kept: Sequence[TrainRow],
        done: Sequence[Mapping[str, float]],
        skipped: int,
    ) -> dict[str, float]:
        groups = self._groups(sampled)
        return {
            **update_means(done),
            **summary(sampled),
            "groups_without_signal": sum(not has_signal(g) for g in groups) / len(groups),
            "responses": len(sampled),
            "responses_trained_on": len(kept),
            "updates": len(done),
            "prompts_skipped": skipped,
        }


def _at_once(job: Callable[[], T]) -> T:
    return job()


def _never() -> None:
    """Let no signal in."""


def has_signal(group: Sequence[Trajectory]) -> bool:
    """Whether the responses of a group differ in reward; else every advantage is zero."""
    return len({t.reward.total for t in group}) > 1
