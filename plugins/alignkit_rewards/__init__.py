"""Built-in rewards: r1_zero and question_only compare an answer with the gold.

The others shape (length_penalty, overlong_shaping, repetition_penalty, format_bonus), combine
(weighted_sum) or call your own code (python).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Component, Params, RecipePath, hookimpl
from alignkit.component import PathOrName
from alignkit.engine.sampling.endpoint_table import EndpointFields
from alignkit.protocols import Policy, PromptTemplate, RewardFn, RolloutBackend
from alignkit.security.names import name_problem, refused
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


class Judge(EndpointFields[RewardFn]):
    """The score another model gives a response.

    It is asked through an OpenAI-compatible endpoint, or, with ``[reward.policy]`` and
    ``[reward.rollout]``, by any rollout backend; ``[reward.template]`` is then the prompt template
    around the judge's prompt. The score is scaled to [0, 1]. Replies are kept in ``cache`` as they
    arrive, so that nothing is asked twice, even after a kill. A response for which there was no
    verdict is marked by the part ``unjudged``: evaluations leave it out of their means, and in
    training its reward is the mean of the judged responses to its question.
    """

    prompt: RecipePath
    """UTF-8 file with the judge's prompt; ``{question}``, ``{response}`` and ``{answer}`` (the
    gold) are replaced, verbatim."""

    pattern: str = r"[Ss]core:\s*(-?\d+(?:\.\d+)?)"
    """Regular expression with one group, the score; the last match in a reply counts."""

    worst: float = 0.0
    """Score that becomes the reward 0."""

    best: float = 10.0
    """Score that becomes the reward 1; scores outside this range are no verdict."""

    def build(
        self,
        *,
        policy: Policy | None = None,
        rollout: RolloutBackend | None = None,
        template: PromptTemplate | None = None,
    ) -> RewardFn:
        import re
        from functools import partial

        from alignkit_rewards.judged import JudgeReward, Model, verdict

        pattern = re.compile(self.pattern)
        read = partial(verdict, pattern=pattern, worst=self.worst, best=self.best)
        text = self.prompt.read_text(encoding="utf-8")
        if policy is None or rollout is None:
            return JudgeReward(self.endpoint(), text, read)
        from alignkit.engine.sampling.local_model import LocalModel

        model: Model = LocalModel(policy, rollout, template)
        return JudgeReward(model, text, read)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        import re

        yield from self._asked_how(tables)
        if not self.prompt.is_file():
            yield "prompt", f"there is no file {self.prompt.name}"
        elif "{response}" not in self.prompt.read_text(encoding="utf-8"):
            yield "prompt", "the judge would not see the response; write {response} in the file"
        if self.worst == self.best:
            yield "best", "worst and best are equal, so no score says anything"
        try:
            if re.compile(self.pattern).groups != 1:
                yield "pattern", "it takes exactly one group, which is the score"
        except re.error as error:
            yield "pattern", f"no regular expression: {error}"

    def _asked_how(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield what is wrong unless an endpoint is named, or a policy with its backend."""
        local = {"policy", "rollout", "template"} & tables.keys()
        if not local:
            yield from self.named()
            return
        for lacking in sorted({"policy", "rollout"} - tables.keys()):
            yield "", f"a judge that is run here needs a table [reward.{lacking}] as well"
        endpoint = {*EndpointFields.model_fields}
        for key in sorted(self.model_fields_set & endpoint):
            if getattr(self, key) != type(self).model_fields[key].default:
                yield key, "is for an endpoint; the judge is [reward.policy]"


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


class Measured(Params[RewardFn]):
    """How the length of a response is counted."""

    unit: Literal["tokens", "words", "characters"] = "words"
    """Unit of lengths. Tokens are the sampled ones, including the end-of-sequence token."""

    tokenizer: PathOrName = ""
    """Folder or Hub name of the tokenizer that counts the tokens of text that was not sampled, as
    in ``alignkit grade``, for ``unit = "tokens"``."""

    def scored(self, part: str, score: Callable[[int], float]) -> RewardFn:
        """Return the reward that scores the measured length."""
        from alignkit_rewards.shaping import Shaping, measure

        count = measure(self.unit, self.tokenizer)
        return Shaping(part, lambda text: score(count(text)))


class LengthPenalty(Measured):
    """0 up to a free length, then falling linearly to -1."""

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

    Yu et al., arXiv:2503.14476, equation 13. In the paper lengths are in tokens; set ``unit``.
    """

    max_length: Annotated[int, Field(gt=0)]
    """Length at which the punishment is -1, in ``unit``: usually the sampler's max_tokens."""

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
    r"""1 if the response follows a format, whatever its answer, else 0."""

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
