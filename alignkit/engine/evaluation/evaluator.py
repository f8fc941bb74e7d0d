"""Evaluation by generation, on a subset that is the same every time.

The draws are keyed by the set's own seed and the example, not by the training step. So two
evaluations differ only if the policies do, and evaluating a saved policy again gives the numbers of
the run that saved it. Small sets with the same sampling settings share one call; each response's
draws are the same as in a separate call for its set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from alignkit.engine.evaluation.entropies import mean_entropy, token_entropies
from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet, complete
from alignkit.engine.evaluation.response_rows import eval_row
from alignkit.engine.evaluation.statistics import (
    accuracy_by,
    graded,
    prefixed,
    sampled,
    summary,
)
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.questions import Prompt, example_at, fits, make_prompt
from alignkit.engine.sampling.rollouts import (
    Trajectory,
    check_groups,
    collect,
    collect_each,
    with_stops,
)
from alignkit.engine.seeds import shuffled
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Environment,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Sampling,
)

if TYPE_CHECKING:
    from alignkit.protocols import Run

_TOGETHER = 1024
"""Maximum number of responses of several sets in one call."""


class Evaluator:
    """Evaluates a policy on the plan's sets and reports the results."""

    def __init__(
        self,
        plan: EvalPlan,
        *,
        policy: Policy,
        backend: RolloutBackend | None,
        prompt: PromptTemplate | None,
        reward: RewardFn | None,
        token_budget: int,
        environment: Environment | None = None,
    ) -> None:
        """Take the algorithm's components; sets with their own use those.

        ``token_budget`` caps padded tokens per forward pass when entropies are computed.
        """
        if backend is None:
            raise AlignkitError("[eval] generates responses, so it needs a table [rollout]")
        self.plan = plan
        self._policy, self._backend, self._budget = policy, backend, token_budget
        self._sets = complete(plan, prompt, reward, environment)
        for name, (chosen, _, _) in self._sets.items():
            _refuse_equal_draws(name, chosen, backend.sampling)
        self._prompts: dict[str, list[Prompt]] = {}

    def run(self, run: Run, step: int) -> dict[str, float]:
        """Evaluate every set, write a row per response, return ``eval/…`` and ``time/eval``."""
        clock = Clock()
        found: dict[str, dict[str, float]] = {}
        with clock("eval"):
            for names in self._calls():
                for name, (measured, rows) in self._evaluated(names).items():
                    where = f"eval/{name}" if name else "eval"
                    found[name] = prefixed(where, measured)
                    run.rows(step, where, rows)
        metrics = {key: value for name in self._sets for key, value in found[name].items()}
        return metrics | clock.metrics()

    def evaluate(self, name: str = "") -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return the metrics of one set, without prefix, and a row per response."""
        return self._evaluated([name])[name]

    def _calls(self) -> Iterator[list[str]]:
        """Yield the sets to sample in one call: those with the same sampling settings.

        A call takes more sets only while it has fewer than ``_TOGETHER`` responses: beyond that,
        one large call is no faster than several, and all responses are held until it ends.
        """
        alike: dict[Sampling, list[str]] = {}
        sizes: Counter[Sampling] = Counter()
        for name, (_, asks, reward) in self._sets.items():
            if isinstance(asks, Opening) or reward is None:  # episodes are played set by set
                yield [name]
                continue
            sampling = self._sampling(name)
            size = len(self._asked(name)) * sampling.n
            if sampling in alike and sizes[sampling] + size > _TOGETHER:
                yield alike.pop(sampling)
                del sizes[sampling]
            alike.setdefault(sampling, []).append(name)
            sizes[sampling] += size
        yield from alike.values()

    def _sampling(self, name: str) -> Sampling:
        chosen, template, _ = self._sets[name]
        return eval_sampling(chosen, template, self._backend.sampling)

    def _asked(self, name: str) -> list[Prompt]:
        """Return the prompts of a set; they are the same every time, and are made once."""
        if name not in self._prompts:
            chosen, template, _ = self._sets[name]
            prompts = fixed_subset(chosen, template, self._policy)
            _refuse_too_long(name, prompts, self._policy)
            self._prompts[name] = prompts
        return self._prompts[name]

    def _evaluated(
        self, names: Sequence[str]
    ) -> dict[str, tuple[dict[str, float], list[dict[str, Any]]]]:
        """Return what :meth:`evaluate` does, by name, for sets with the same sampling settings."""
        judged = [(name, reward) for name in names if (reward := self._sets[name][2]) is not None]
        parts = [(self._asked(name), reward) for name, reward in judged]
        how = self._sampling(names[0])
        asks = self._sets[names[0]][1]
        if isinstance(asks, Opening) or len(parts) < len(names):
            return {name: self._measured(name, self._alone(name, how)) for name in names}
        collected = collect_each(
            parts, policy=self._policy, backend=self._backend, sampling=how, clock=Clock()
        )
        return {n: self._measured(n, some) for n, some in zip(names, collected, strict=True)}

    def _alone(self, name: str, how: Sampling) -> list[Trajectory]:
        """Return the judged responses or episodes of one set."""
        _, asks, reward = self._sets[name]
        return collect(
            self._asked(name),
            policy=self._policy,
            backend=self._backend,
            reward=reward,
            sampling=how,
            clock=Clock(),
            opening=asks if isinstance(asks, Opening) else None,
        )

    def _measured(
        self, name: str, trajectories: Sequence[Trajectory]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return the metrics of a set's judged responses and a row for each."""
        chosen, _, reward = self._sets[name]
        check_groups(trajectories, chosen.samples)
        entropies = token_entropies(self._policy, trajectories, self._budget)
        metrics = describe(trajectories, entropies, chosen.samples, reward)
        metrics["prompts_too_long"] = sum(not fits(p, self._policy) for p in self._asked(name))
        if chosen.by:
            metrics |= accuracy_by(chosen.by, trajectories)
        rows = [eval_row(t, e, chosen.by) for t, e in zip(trajectories, entropies, strict=True)]
        return metrics, rows


def _refuse_equal_draws(name: str, chosen: EvalSet, base: Sampling) -> None:
    """Raise AlignkitError if several responses to an example would be equal."""
    greedy = (base.temperature if chosen.temperature is None else chosen.temperature) == 0
    if greedy and chosen.samples > 1:
        where = f"eval.sets.{name}" if name else "eval"
        raise AlignkitError(
            f"{where}.samples = {chosen.samples}, but temperature 0 is greedy: all responses to an "
            f"example would be equal; set samples = 1 or {where}.temperature above 0"
        )


def _refuse_too_long(name: str, prompts: Sequence[Prompt], policy: Policy) -> None:
    """Raise AlignkitError if the policy could answer none of the prompts."""
    if not any(fits(prompt, policy) for prompt in prompts):
        raise AlignkitError(
            f"every prompt of the evaluation{f' set {name!r}' if name else ''} fills the "
            f"{policy.max_length} tokens the policy takes, which leaves no room for an answer; use "
            f"shorter questions, a shorter template or another policy"
        )


def fixed_subset(
    chosen: EvalSet, template: PromptTemplate | Opening, policy: Policy
) -> list[Prompt]:
    """Return the set's prompts: ``n`` rows drawn by its seed, in the order of the data."""
    size = len(chosen.data)
    if size == 0:
        raise AlignkitError("an evaluation set holds no examples")
    count = min(chosen.n or size, size)
    rows = sorted(shuffled(size, f"{chosen.seed}/eval")[:count])
    return [make_prompt(i, i, example_at(chosen.data, i), template, policy) for i in rows]


def eval_sampling(chosen: EvalSet, template: PromptTemplate | Opening, base: Sampling) -> Sampling:
    """Return the backend's sampling with the set's overrides and its own seed."""
    base = with_stops(base, template)
    return replace(
        base,
        n=chosen.samples,
        temperature=base.temperature if chosen.temperature is None else chosen.temperature,
        max_tokens=base.max_tokens if chosen.max_tokens is None else chosen.max_tokens,
        seed=chosen.seed,
        step=0,
    )


def describe(
    trajectories: Sequence[Trajectory],
    entropies: Sequence[torch.Tensor],
    samples: int,
    reward: RewardFn | None = None,
) -> dict[str, float]:
    """Return all metrics of an evaluation; ``entropies`` holds one (T_i,) per response."""
    groups = [trajectories[i : i + samples] for i in range(0, len(trajectories), samples)]
    return {
        **summary(trajectories),
        **graded(groups),
        "token_entropy": mean_entropy(entropies),
        **(sampled(groups, reward) if samples > 1 else {}),
    }
