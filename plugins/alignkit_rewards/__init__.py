"""Built-in rewards: r1_zero and question_only compare an answer with the gold.

The others shape (length_penalty, overlong_shaping, repetition_penalty, format_bonus), combine
(weighted_sum) or call your own code (python).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.protocols import RewardFn
from alignkit.security.names import name_problem, refused
from alignkit_rewards.judge import Judge
from alignkit_rewards.penalties import (
    FormatBonus,
    LengthPenalty,
    OverlongShaping,
    RepetitionPenalty,
)
from alignkit_rewards.python import Python


class Graded(Params[RewardFn]):
    """When two answers count as equal; shared by the rewards that compare an answer with the gold.

    The gold is the example's ``answer``: an answer alone, or a solution that holds it in
    ``\\boxed{}`` or after ``####``. Verdicts that run out of time or memory count as wrong and are
    shown as the part ``timed_out``; answers that cannot be read are shown as the part ``unparsed``.
    """

    timeout: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds of CPU time that a verdict may take; then its worker is killed and the answer counts
    as wrong. Time in which the worker is stopped or waits for a CPU does not count."""

    percent: Literal["either", "sign", "value"] = "either"
    """What ``50%`` equals besides itself: 50 (``"sign"``), 1/2 (``"value"``), or either."""

    rounding: Annotated[int, Field(ge=0, le=30)] = 6
    """A decimal with at least this many significant digits equals what rounds to it; 0 = never."""

    list_order: Literal["free", "kept"] = "free"
    """Whether ``1, 2`` equals ``2, 1``. With ``"free"`` a list is a set, also where the problem
    asks for a ranking or an order; set ``"kept"`` for such data. Tuples, vectors and intervals
    always keep their order."""

    unsimplified: bool = True
    """Accept numbers left as expressions, such as ``8/46`` for 4/23 or ``2^3`` for 8."""

    decimal_comma: bool = False
    """Read ``1,22`` as 1.22; otherwise as two numbers. ``1,220`` is 1220 in any case."""

    rough: Literal["decimals", "accepted", "refused"] = "decimals"
    """Whether ``about 5`` or ``≈ 5`` is 5: ``"decimals"`` accepts it only for a number with digits
    after the point, as a rounded gold has. ``nearly 5`` and ``at least 5`` never are."""

    several_boxes: Literal["listed", "last", "agree"] = "listed"
    r"""How ``\boxed{1}`` and ``\boxed{2}`` in one response are read: ``"listed"`` takes boxes with
    only a comma, "and", "or" or a name between them as the list 1, 2, and otherwise counts the
    last; ``"last"`` counts the last; ``"agree"`` accepts only boxes with equal content. Majority
    votes read boxes the same way."""

    unit_conversion: bool = False
    """Accept ``1.5 hours`` for ``90 minutes``; otherwise the unit must be the gold's or be left
    out. ``1 hour 30 minutes`` equals both in any case."""

    also_accepted: str = ""
    """Column of the dataset with additional right answers, one or a list; empty = none."""

    def graded(self, extract: Callable[[str], str | None]) -> RewardFn:
        """Return the reward for what ``extract`` finds in a response, under these conventions."""
        from alignkit_rewards.answers import Conventions
        from alignkit_rewards.graded import GradedReward

        rules = Conventions(**self.model_dump(include={f.name for f in fields(Conventions)}))
        return GradedReward(extract, rules, timeout=self.timeout, also_accepted=self.also_accepted)


class R1Zero(Graded):
    """1 if the answer between ``<answer>`` tags is right, else 0; the format is shown separately.

    The rule of DeepSeek-AI, arXiv:2501.12948, section 2.2.2: the part ``format`` is 1 if
    ``</think> <answer>`` is followed by ``</answer>``. The last complete answer counts, and text
    after its ``</answer>`` is ignored. The reward is the part ``answer``.
    """

    strict_format: bool = True
    """Require exactly one space in ``</think> <answer>``; otherwise any white space or none."""

    def build(self) -> RewardFn:
        from functools import partial

        from alignkit_rewards.formats import tagged_answer

        return self.graded(partial(tagged_answer, strict=self.strict_format))


class QuestionOnly(Graded):
    r"""1 if the answer in the last balanced ``\boxed{}`` is right, else 0.

    Several boxes are read according to ``several_boxes``. The part ``format`` is 1 if
    there is a box whose braces balance.
    """

    def build(self) -> RewardFn:
        from functools import partial

        from alignkit_rewards.formats import boxed_answer

        return self.graded(partial(boxed_answer, several=self.several_boxes))


class LastNumber(Graded):
    """1 if the last number in the response is the gold, else 0 (as GSM8K is usually scored)."""

    def build(self) -> RewardFn:
        from alignkit.text.said import last_number

        return self.graded(last_number)


class MultipleChoice(Params[RewardFn]):
    """1 if the response chooses the right option, else 0; for data such as ``mmlu``.

    The choice is the letter, or the whole text of an option, after "answer is" and the like or at
    the beginning. The part ``unparsed`` marks responses without a choice.
    """

    choices: str = "choices"
    """Column of the dataset that holds the texts of the options, A first."""

    def build(self) -> RewardFn:
        from alignkit_rewards.said import OptionReward

        return OptionReward(self.choices)


class Refusal(Params[RewardFn]):
    """1 if the response begins by declining the request, else 0; for unsafe requests.

    A rule on phrases such as "I cannot" or "I'm sorry", as used by Zou et al. 2023
    (arXiv:2307.15043): cheap, needs no model, and misses what it does not know; the
    reward ``judge`` reads responses.
    """

    def build(self) -> RewardFn:
        from alignkit_rewards.refusals import refuses
        from alignkit_rewards.shaping import Shaping

        return Shaping("answer", lambda text: float(refuses(text)))


class Finished(Params[RewardFn]):
    """1 if the response ended of its own accord, 0 if it was cut at its limit of tokens.

    For responses that are compared elsewhere, such as by ``alpaca_eval``. Text that was not sampled
    counts as finished.
    """

    def build(self) -> RewardFn:
        from alignkit_rewards.shaping import Shaping, finished

        return Shaping("answer", lambda text: float(finished(text)))


class WeightedSum(Params[RewardFn]):
    """Add several rewards, each times its weight: tables ``[reward.terms.NAME]``.

    Every term's weighted share is shown as the part ``share/NAME``; ``format`` and
    ``answer`` keep their names.
    """

    weights: dict[str, float] = Field(default_factory=dict)
    """Factor per term, by name; 1 for a term that is not listed."""

    def build(self, *, terms: Mapping[str, RewardFn]) -> RewardFn:
        from alignkit_rewards.combine import WeightedSum as Sum

        return Sum(terms, self.weights)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        terms = tables.get("terms") or {}
        if not terms:
            yield "", "a weighted sum needs at least one table [reward.terms.NAME]"
        for name in terms:  # names of metrics, and so of files, are made of it
            if problem := name_problem(name):
                yield "terms", refused(name, "a term", problem)
        for name in sorted(self.weights.keys() - terms.keys()):
            known = ", ".join(sorted(terms)) or "none"
            yield "weights", f"no term is called {name!r}; there are: {known}"


@hookimpl
def reward_fn() -> Iterable[Component[RewardFn]]:
    yield Component("r1_zero", R1Zero)
    yield Component("question_only", QuestionOnly)
    yield Component("last_number", LastNumber)
    yield Component("multiple_choice", MultipleChoice)
    yield Component("refusal", Refusal)
    yield Component("finished", Finished)
    yield Component("judge", Judge)
    yield Component("weighted_sum", WeightedSum)
    yield Component("length_penalty", LengthPenalty)
    yield Component("repetition_penalty", RepetitionPenalty)
    yield Component("overlong_shaping", OverlongShaping)
    yield Component("format_bonus", FormatBonus)
    yield Component("python", Python)
