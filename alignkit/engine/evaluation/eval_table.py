"""The ``[eval]`` table that training algorithms share. Imports no torch: recipes are checked
with it.

An algorithm takes it by a keyword-only argument of its ``build``::

    eval: Annotated[EvalPlan, EvalTable] | None = None
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from alignkit.component import Params
from alignkit.engine.sampling.opening import Opening
from alignkit.errors import AlignkitError
from alignkit.protocols import Dataset, Environment, PromptTemplate, RewardFn
from alignkit.security.names import name_problem, refused

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSet:
    """One set of held-out problems, and how the policy is evaluated on it."""

    data: Dataset
    n: int = 0
    """Examples in the fixed subset; 0, or more than there are, means all."""
    seed: int = 0
    """Determines the subset and the random draws."""
    samples: int = 1
    """Responses per example."""
    temperature: float | None = None
    """None = the rollout backend's."""
    max_tokens: int | None = None
    """None = the rollout backend's."""
    by: str = ""
    """Column by whose values accuracy is also reported; "" = none."""
    prompt: PromptTemplate | None = None
    """None = the algorithm's."""
    reward: RewardFn | None = None
    """None = the algorithm's."""
    environment: Environment | None = None
    """None = the algorithm's, if it has one."""


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """When to evaluate, and on what."""

    sets: Mapping[str, EvalSet]
    """By name. Set ``""`` is logged as ``eval/…``, the others as ``eval/NAME/…``."""
    every: int = 1
    """Steps between evaluations; the first is before step 1, the last after the last step."""

    def due(self, step: int, last: int) -> bool:
        """Whether to evaluate after ``step`` of ``last``; step 0 is before the first."""
        return step % self.every == 0 or step == last


class EvalFields(Params[T], Generic[T]):
    """The keys of one evaluation set besides its sub-tables."""

    n: Annotated[int, Field(ge=0)] = 256
    """Number of examples: a subset determined by ``seed``, the same in each evaluation. 0 = all."""

    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Determines the subset and the random draws, independently of the run's seed."""

    samples: Annotated[int, Field(ge=1)] = 1
    """Responses per example; above 1, pass@k and majority@k are reported too."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    """Sampling temperature; 0 = greedy. Default: that of [rollout]."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of response tokens. Default: that of [rollout]."""

    by: str = ""
    """Column of the data, such as "subject": accuracy is also reported for each of its values, as
    ``answer_reward/VALUE``. "" = none."""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.temperature == 0 and self.samples > 1:
            yield (
                "samples",
                f"temperature 0 is greedy: all {self.samples} responses to an example would be "
                f"equal; use samples = 1 or a temperature above 0",
            )
        if getattr(tables.get("data"), "order", "shuffled") == "given":
            yield "data.order", "an evaluation asks its questions all at once; leave it out"

    def eval_set(
        self,
        data: Dataset,
        prompt: PromptTemplate | None,
        reward: RewardFn | None,
        environment: Environment | None,
    ) -> EvalSet:
        """Return the set, made of the table's values and its components."""
        values = self.model_dump(include={*EvalFields.model_fields})
        return EvalSet(data=data, prompt=prompt, reward=reward, environment=environment, **values)


class EvalSetTable(EvalFields[EvalSet]):
    """Another set of problems, ``[eval.sets.NAME]``, logged as ``eval/NAME/…``."""

    def build(
        self,
        *,
        data: Dataset,
        prompt: PromptTemplate | None = None,
        reward: RewardFn | None = None,
        environment: Environment | None = None,
    ) -> EvalSet:
        return self.eval_set(data, prompt, reward, environment)


class EvalTable(EvalFields[EvalPlan]):
    """Evaluation by generating answers: before the first step, at intervals, and at the end."""

    every: Annotated[int, Field(ge=1)] = 10
    """Steps between evaluations."""

    def build(
        self,
        *,
        data: Dataset | None = None,
        prompt: PromptTemplate | None = None,
        reward: RewardFn | None = None,
        environment: Environment | None = None,
        sets: Mapping[str, Annotated[EvalSet, EvalSetTable]] | None = None,
    ) -> EvalPlan:
        unnamed = {} if data is None else {"": self.eval_set(data, prompt, reward, environment)}
        return EvalPlan({**unnamed, **(sets or {})}, self.every)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from super().check(tables)
        yield from needs_data(tables, "[eval.data], or [eval.sets.NAME] with a data table each")

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        return {"evaluations": f"before step 1, every {self.every} steps, after the last"}


def needs_data(tables: Mapping[str, Any], remedy: str) -> Iterable[tuple[str, str]]:
    """Yield a problem if there is nothing to evaluate on, or a set's name cannot name a folder."""
    if not tables.get("data") and not tables.get("sets"):
        yield "", f"there is nothing to evaluate on; add {remedy}"
    for name in tables.get("sets") or ():
        if problem := name_problem(name, reserved="step_*"):  # the files of the set without a name
            yield "sets", refused(name, "a set", problem)


def complete(
    plan: EvalPlan,
    prompt: PromptTemplate | None,
    reward: RewardFn | None,
    environment: Environment | None = None,
) -> dict[str, tuple[EvalSet, PromptTemplate | Opening, RewardFn | None]]:
    """Return each set with its own components or else the algorithm's; error if one is missing.

    A set in an environment needs neither prompt nor reward.
    """
    completed: dict[str, tuple[EvalSet, PromptTemplate | Opening, RewardFn | None]] = {}
    for name, chosen in plan.sets.items():
        template, judge = chosen.prompt or prompt, chosen.reward or reward
        if (world := chosen.environment or environment) is not None:
            completed[name] = (chosen, Opening(world, template, chosen.seed), judge)
            continue
        if template is None or judge is None:
            lacking = "prompt" if template is None else "reward"
            where = f"eval.sets.{name}" if name else "eval"
            raise AlignkitError(
                f"[{where}] has no {lacking}: add a table [{lacking}] or [{where}.{lacking}]"
            )
        completed[name] = (chosen, template, judge)
    return completed
