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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from alignkit.engine.evaluation.evaluator import mean_entropy, token_entropies
from alignkit.engine.evaluation.statistics import prefixed, summary, update_means
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.supervised import Epochs, nll, steps_in
from alignkit.engine.sampling.rollouts import Trajectory, to_row
from alignkit.engine.sampling.sampler import Sampler
from alignkit.engine.training.loop import Parts, Training, stateful
from alignkit.protocols import Dataset, Normalizer

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.expert_iteration_table import ExpertIteration


@dataclass(kw_only=True)
class ExpertIterationRun:
    """The parts of an expert-iteration run, and its loop."""

    keys: ExpertIteration
    parts: Parts
    data: Dataset
    normalizer: Normalizer

    def run(self, run: Run) -> Mapping[str, float]:
        """Train, evaluate as planned, and leave the policy in ``final/``."""
        with self.parts.open(run) as training:
            return self._train(training)

    def _train(self, training: Training) -> dict[str, float]:
        keys = self.keys
        learner = self._learner()
        sampler = Sampler(self.parts, self.data, group_size=keys.group_size)
        state = stateful(sampler=sampler, normalizer=self.normalizer)
        for step in training.steps(keys.n_steps, learner, state=state):
            sampled, entropy = training.once(lambda: self._sample(training, sampler))
            kept = [t for t in sampled if t.reward.total >= keys.min_reward]
            updates = training.updates(self._updates(learner, kept, step))
            training.sync()
            training.save_rollouts(sampled, keys.save_rollouts_every)
            metrics = update_means(updates) if updates else {}
            metrics |= self._metrics(sampled, kept, entropy, sampler.skipped)
            training.end_step(prefixed("train", metrics))
            if not kept:
                said = f"step {step}: none of {len(sampled)} responses was right; no update"
                training.run.say(said)
        return training.finish()

    def _learner(self) -> Learner:
        keys = self.keys
        most = steps_in(
            keys.rollout_batch_size, keys.train_batch_size, keys.epochs_per_rollout_batch
        )
        return self.parts.learner(nll, self.normalizer, total_steps=keys.n_steps * most)

    def _sample(self, training: Training, sampler: Sampler) -> tuple[list[Trajectory], float]:
        """Return responses to fresh questions, and their entropy before they are learned from."""
        sampled = sampler.draw(
            self.keys.rollout_batch_size, step=training.step, clock=training.clock
        )
        entropies = token_entropies(self.parts.policy, sampled, self.keys.token_budget)
        return sampled, mean_entropy(entropies)

    def _updates(
        self, learner: Learner, kept: Sequence[Trajectory], step: int
    ) -> Iterator[Callable[[], dict[str, float]]]:
        """Yield the optimizer steps that fine-tune on the right responses."""
        if not kept:
            return
        rows, keys = [to_row(t) for t in kept], self.keys
        epochs = Epochs(len(rows), keys.train_batch_size, f"{keys.seed}/rows/{step}")
        count = steps_in(len(rows), keys.train_batch_size, keys.epochs_per_rollout_batch)
        for number in range(count):
            _, at = epochs.batch(number)
            yield partial(learner.step, [rows[i] for i in at])

    def _metrics(
        self,
        sampled: Sequence[Trajectory],
        kept: Sequence[Trajectory],
        entropy: float,
        skipped: int,
    ) -> dict[str, float]:
        solved = len({t.group_id for t in kept})
        return {
            **summary(sampled),
            "token_entropy": entropy,
            "responses": len(sampled),
            "responses_trained_on": len(kept),
            "questions_solved": solved * self.keys.group_size / self.keys.rollout_batch_size,
            "prompts_skipped": skipped,
        }
