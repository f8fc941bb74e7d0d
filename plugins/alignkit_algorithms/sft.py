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
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from alignkit.engine.evaluation.statistics import prefixed
from alignkit.engine.learning.supervised import Epochs, column, nll, steps_in, supervised_row
from alignkit.engine.seeds import shuffled
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.loop import Parts, Training, stateful
from alignkit.errors import AlignkitError
from alignkit.protocols import Dataset, Example, Normalizer, PromptTemplate

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.sft_table import Sft


@dataclass(kw_only=True)
class SftRun:
    """The parts of a fine-tuning run, and its loop."""

    keys: Sft
    parts: Parts
    data: Dataset
    prompt: PromptTemplate
    normalizer: Normalizer

    def __post_init__(self) -> None:
        self.pairs = unique_pairs(self.data, self.keys.response_column)

    def run(self, run: Run) -> Mapping[str, float]:
        """Train, evaluate as planned, and leave the policy in ``final/``."""
        with self.parts.open(run) as training:
            return self._train(training)

    def _train(self, training: Training) -> dict[str, float]:
        rows, counts = self._rows()
        size = self.keys.train_batch_size
        n_steps = self.keys.n_steps or steps_in(len(rows), size, self.keys.epochs)
        training.run.say(f"{describe(counts)}; {n_steps} optimizer steps")
        learner = self.parts.learner(nll, self.normalizer, total_steps=n_steps)
        epochs = Epochs(len(rows), size, f"{self.keys.seed}/rows")
        state = stateful(normalizer=self.normalizer)
        for step in training.steps(n_steps, learner, state=state, first=lambda: counts):
            epoch, at = epochs.batch(step - 1)
            (update,) = training.updates([partial(learner.step, [rows[i] for i in at])])
            training.end_step(prefixed("train", {**update, "epoch": epoch, "rows": len(at)}))
        return training.finish()

    def _rows(self) -> tuple[list[TrainRow], dict[str, float]]:
        """Return the rows to train on, and how many of the data were left out and why."""
        pairs = self.pairs
        correct = self._correct(pairs)
        rows = [
            supervised_row(e, r, self.prompt, self.parts.policy, self.keys.append_eos)
            for e, r in correct
        ]
        fitting = [row for row in rows if row.length <= self.parts.policy.max_length]
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
        reward = self.parts.reward
        if not self.keys.keep_correct_only or reward is None:
            return pairs
        rewards = reward([r for _, r in pairs], [e for e, _ in pairs])
        return [
            pair
            for pair, given in zip(pairs, rewards, strict=True)
            if given.total >= self.keys.min_reward
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
