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
from alignkit.component import PathOrName
from alignkit.protocols import RewardFn
from alignkit.security.names import name_problem, refused
from alignkit_rewards.python import Python


class Graded(Params[RewardFn]):
    """Conventions of equality, shared by the rewards that compare an answer with the gold.

    The gold is the example's ``answer``: an answer alone, or a solution that holds it in
    ``\\boxed{}`` or after ``####``. Undecided verdicts (time, memory) count as wrong and show
    as the part ``timed_out``; answers that cannot be read as the part ``unparsed``.
    """

    timeout: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds of a processor that a verdict may take; then its worker is killed and the answer
    counts as wrong. Time in which the worker is stopped or waits for its turn does not count."""

    percent: Literal["either", "sign", "value"] = "either"
    """What ``50%`` equals besides itself: 50 (``"sign"``), 1/2 (``"value"``), or either."""

    rounding: Annotated[int, Field(ge=0, le=30)] = 6
    """A decimal with at least so many significant digits equals what rounds to it; 0 = never."""

    list_order: Literal["free", "kept"] = "free"
    """Whether ``1, 2`` equals ``2, 1``. With ``"free"`` a list is a set, also where the problem
    asks for a ranking or an order; set ``"kept"`` for such data. Tuples, vectors and intervals
    always keep their order."""

    unsimplified: bool = True
    """Accept numbers left as expressions, such as ``8/46`` for 4/23 or ``2^3`` for 8."""

    decimal_comma: bool = False
    """Read ``1,22`` as 1.22; otherwise as two numbers. ``1,220`` is 1220 in any case."""

    rough: Literal["decimals", "accepted", "refused"] = "decimals"
    """Whether ``about 5`` or ``≈ 5`` is 5: ``"decimals"`` accepts only a number with digits after
    its point, which a rounded gold has too. ``nearly 5`` and ``at least 5`` never are."""

    several_boxes: Literal["listed", "last", "agree"] = "listed"
    r"""What ``\boxed{1}`` and ``\boxed{2}`` say: ``"listed"`` reads boxes with no more than a
    comma, "and", "or" or a name between them as the list 1, 2, and else counts the last;
    ``"last"`` counts the last; ``"agree"`` accepts only boxes of one content. So samples vote."""

    unit_conversion: bool = False
    """Accept ``1.5 hours`` for ``90 minutes``; otherwise a unit has to be the gold's or left out.
    ``1 hour 30 minutes`` equals both in any case."""

    also_accepted: str = ""
    """Column of the dataset that holds further right answers, one or a list; empty = none."""

    def graded(self, extract: Callable[[str], str | None]) -> RewardFn:
        """Return the reward of what ``extract`` finds in a response, under these conventions."""
        from alignkit_rewards.answers import Conventions
        from alignkit_rewards.graded import GradedReward

        rules = Conventions(**self.model_dump(include={f.name for f in fields(Conventions)}))
        return GradedReward(extract, rules, timeout=self.timeout, also_accepted=self.also_accepted)


class R1Zero(Graded):
    """1 if the answer between ``<answer>`` tags is right, else 0; the format is shown apart.

    The rule of DeepSeek-AI, arXiv:2501.12948, section 2.2.2: the part ``format`` is 1 if
    ``</think> <answer>`` is followed by ``</answer>``. The last complete answer counts, and text
    after its ``</answer>`` is ignored. The reward is the part ``answer``.
    """

    strict_format: bool = True
    """Ask for exactly one space in ``</think> <answer>``; otherwise any white space or none."""

    def build(self) -> RewardFn:
        from functools import partial

        from alignkit_rewards.formats import tagged_answer

        return self.graded(partial(tagged_answer, strict=self.strict_format))


class QuestionOnly(Graded):
    r"""1 if the answer in the last balanced ``\boxed{}`` is right, else 0.

    Several boxes are read as ``several_boxes`` says. The part ``format`` is 1 if
    there is a box whose braces balance.
    """

    def build(self) -> RewardFn:
        from functools import partial

        from alignkit_rewards.formats import boxed_answer

        return self.graded(partial(boxed_answer, several=self.several_boxes))


class WeightedSum(Params[RewardFn]):
    """Add several rewards, each times its weight: tables ``[reward.terms.NAME]``.

    Every term's weighted share is shown apart as the part ``share/NAME``; ``format`` and
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


class Measured(Params[RewardFn]):
    """How the length of a response is counted."""

    unit: Literal["tokens", "words", "characters"] = "words"
    """What lengths count. Tokens are the sampled ones, the end-of-sequence token included."""

    tokenizer: PathOrName = ""
    """Folder or Hub name of the tokenizer that counts the tokens of text that was not sampled, as
    in ``alignkit grade``, for ``unit = "tokens"``."""

    def scored(self, part: str, score: Callable[[int], float]) -> RewardFn:
        """Return the reward that scores the measured length."""
        from alignkit_rewards.shaping import Shaping, measure

        count = measure(self.unit, self.tokenizer)
        return Shaping(part, lambda text: score(count(text)))


class LengthPenalty(Measured):
    """0 up to a free length, then down in a straight line to -1."""

    free: Annotated[int, Field(ge=0)]
    """Longest response without a penalty, in ``unit``."""

    span: Annotated[int, Field(gt=0)]
    """Length beyond ``free`` at which the penalty reaches -1, in ``unit``."""

    def build(self) -> RewardFn:
        from alignkit_rewards.shaping import length_penalty

        return self.scored(
            "length_penalty", lambda n: length_penalty(n, free=self.free, span=self.span)
        )


class OverlongShaping(Measured):
    """DAPO's soft overlong punishment, from 0 to -1 over the last stretch before the limit.

    Yu et al., arXiv:2503.14476, equation 13. There lengths are tokens; set ``unit``.
    """

    max_length: Annotated[int, Field(gt=0)]
    """Length at which the punishment is -1, in ``unit``: the sampler's max_tokens, as a rule."""

    cache: Annotated[int, Field(gt=0)]
    """Length of the stretch before ``max_length`` over which the punishment grows, in ``unit``."""

    def build(self) -> RewardFn:
        from alignkit_rewards.shaping import overlong_penalty

        return self.scored(
            "overlong",
            lambda n: overlong_penalty(n, max_length=self.max_length, cache=self.cache),
        )

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.cache > self.max_length:
            yield "cache", f"{self.cache} is more than max_length = {self.max_length}"


class RepetitionPenalty(Params[RewardFn]):
    """Minus the share of repeated word n-grams, from 0 to almost -1 (arXiv:2502.03373)."""

    n: Annotated[int, Field(gt=0)] = 4
    """Words in an n-gram."""

    def build(self) -> RewardFn:
        from alignkit_rewards.shaping import Shaping, repetition_penalty

        return Shaping("repetition_penalty", lambda text: repetition_penalty(text, n=self.n))


class FormatBonus(Params[RewardFn]):
    r"""1 if the response keeps a format, whatever it answers, else 0."""

    rule: Literal["r1_zero", "boxed"] = "r1_zero"
    r"""``</think> <answer>…</answer>``, or a balanced ``\boxed{}``."""

    strict_format: bool = True
    """As in the reward ``r1_zero``; no effect on boxes."""

    def build(self) -> RewardFn:
        from alignkit_rewards.formats import boxed_answer, tagged_answer
        from alignkit_rewards.shaping import Shaping

        def score(text: str) -> float:
            if self.rule == "boxed":
                return float(boxed_answer(text) is not None)
            return float(tagged_answer(text, strict=self.strict_format) is not None)

        return Shaping("format", score)


@hookimpl
def reward_fn() -> Iterable[Component[RewardFn]]:
    yield Component("r1_zero", R1Zero)
    yield Component("question_only", QuestionOnly)
    yield Component("weighted_sum", WeightedSum)
    yield Component("length_penalty", LengthPenalty)
    yield Component("repetition_penalty", RepetitionPenalty)
    yield Component("overlong_shaping", OverlongShaping)
    yield Component("format_bonus", FormatBonus)
    yield Component("python", Python)
