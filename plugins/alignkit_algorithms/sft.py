"""Supervised fine-tuning: cross-entropy of given responses, conditioned on their prompts.

- Only response tokens count. Prompt and response are tokenized apart, as they are when the
  response is sampled.
- How tokens and rows are averaged is the recipe's [normalizer]: ``token_mean`` is the usual
  cross-entropy; ``masked_normalize`` the assignment's sum over a constant.
- Rows that occur twice are used once, and rows too long for the policy are left out; the first
  line of ``metrics.jsonl`` says how many, under ``data/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignkit.engine.bookkeeping import Clock, seed_everything
from alignkit.engine.eval_table import EvalPlan
from alignkit.engine.evaluation import evaluator_for
from alignkit.engine.learner import Learner
from alignkit.engine.rollouts import serving, shuffled
from alignkit.engine.statistics import prefixed
from alignkit.engine.supervised import column, epoch_batches, nll, steps_in, supervised_row
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Dataset,
    Example,
    Normalizer,
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Tracker,
)

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.sft_table import Sft


@dataclass(kw_only=True)
class SftRun:
    """The parts of a fine-tuning run, and its loop."""

    keys: Sft
    policy: Policy
    data: Dataset
    prompt: PromptTemplate
    normalizer: Normalizer
    optimizer: Optimizer
    reward: RewardFn | None = None
    backend: RolloutBackend | None = None
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
        self.pairs = unique_pairs(self.data, self.keys.response_column)

    def run(self, run: Run) -> Mapping[str, float]:
        """Train, evaluate as planned, and leave the policy in ``final/``."""
        run.attach(self.trackers)
        seed_everything(self.keys.seed)
        with serving(self.backend, self.policy):
            return self._train(run)

    def _train(self, run: Run) -> dict[str, float]:
        rows, metrics = self._rows()
        n_steps = self.keys.n_steps or steps_in(
            len(rows), self.keys.train_batch_size, self.keys.epochs
        )
        run.say(f"{describe(metrics)}; {n_steps} optimizer steps")
        run.total_steps = n_steps
        learner = Learner(
            self.policy,
            nll,
            self.normalizer,
            self.optimizer,
            token_budget=self.keys.token_budget,
            total_steps=n_steps,
        )
        batches = epoch_batches(len(rows), self.keys.train_batch_size, f"{self.keys.seed}/rows")
        if self.evaluator:
            metrics |= self.evaluator.run(run, 0)
        run.log(0, metrics)
        for step in range(1, n_steps + 1):
            clock = Clock()
            epoch, at = next(batches)
            with clock("update"):
                update = learner.step([rows[i] for i in at])
            metrics = prefixed("train", {**update, "epoch": epoch, "rows": len(at)})
            if self.evaluator and self.evaluator.plan.due(step, n_steps):
                metrics |= self._evaluate(run, step, clock)
            metrics |= clock.metrics()
            run.log(step, metrics)
        self.policy.save(run.dir / "final")
        return metrics

    def _evaluate(self, run: Run, step: int, clock: Clock) -> dict[str, float]:
        """Hand the weights to the sampler, which nothing else needs, and evaluate."""
        if self.evaluator is None or self.backend is None:
            return {}
        with clock("sync"):
            self.backend.sync(self.policy)
        return self.evaluator.run(run, step)

    def _rows(self) -> tuple[list[TrainRow], dict[str, float]]:
        """Return the rows to train on, and how many of the data were left out and why."""
        pairs = self.pairs
        correct = self._correct(pairs)
        rows = [
            supervised_row(e, r, self.prompt, self.policy, self.keys.append_eos) for e, r in correct
        ]
        fitting = [row for row in rows if row.length <= self.policy.max_length]
        used = fitting
        if 0 < self.keys.n_examples < len(fitting):
            order = shuffled(len(fitting), f"{self.keys.seed}/subset")[: self.keys.n_examples]
            used = [fitting[i] for i in sorted(order)]
        counts = {
            "rows": len(self.data),
            "unique": len(pairs),
            "wrong": len(pairs) - len(correct),
            "too_long": len(rows) - len(fitting),
            "used": len(used),
        }
        if not used:
            raise AlignkitError(f"[data] leaves nothing to train on: {describe(counts)}")
        return used, prefixed("data", counts)

    def _correct(self, pairs: Sequence[tuple[Example, str]]) -> Sequence[tuple[Example, str]]:
        if not self.keys.keep_correct_only or self.reward is None:
            return pairs
        rewards = self.reward([r for _, r in pairs], [e for e, _ in pairs])
        return [
            pair
            for pair, reward in zip(pairs, rewards, strict=True)
            if reward.total >= self.keys.min_reward
        ]


def unique_pairs(data: Dataset, response_column: str) -> list[tuple[Example, str]]:
    """Return each different (question, response) once, with its first example."""
    seen: dict[tuple[str, str], tuple[Example, str]] = {}
    for i in range(len(data)):
        example = data[i]
        response = column(example, response_column)
        seen.setdefault((example.question, response), (example, response))
    return list(seen.values())


def describe(counts: Mapping[str, float]) -> str:
    """Return the counts as a phrase."""
    c = {name.removeprefix("data/"): int(count) for name, count in counts.items()}
    return (
        f"{c['rows']} rows, {c['unique']} of them different, {c['wrong']} wrong, "
        f"{c['too_long']} too long, {c['used']} used"
    )
