"""Rewards for the shape of a response, whatever its answer: its length, repetitions, format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Params
from alignkit.component import PathOrName
from alignkit.protocols import RewardFn


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
