"""Rewards that depend on form only: length, repetition, overlong responses, format.

They look at the response, never at the gold; ``weighted_sum`` adds them to a graded reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignkit import AlignkitError
from alignkit.protocols import Example, Response, Reward

Measure = Callable[[str], int]


class Shaping:
    """A reward that is a function of the response's text."""

    def __init__(self, part: str, score: Callable[[str], float]) -> None:
        self._part = part
        self._score = score

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Score every response; the examples are not used."""
        scores = [self._score(r) for r, _ in zip(responses, examples, strict=True)]
        return [Reward(s, {self._part: s}) for s in scores]


def measure(unit: str, tokenizer: str) -> Measure:
    """Return a function that counts a response's tokens, words or characters.

    Tokens of a sampled response are those that were sampled; ``tokenizer`` counts other text.
    """
    if unit == "characters":
        return len
    if unit == "words":
        return lambda text: len(text.split())
    from alignkit.engine.tokens import sampled_tokens

    encode = _encoder(tokenizer)

    def tokens(text: str) -> int:
        return sampled_tokens(text.completion) if isinstance(text, Response) else len(encode(text))

    return tokens


def _encoder(tokenizer: str) -> Callable[[str], Sequence[int]]:
    """Return what turns text into ids; without a tokenizer it raises AlignkitError when used."""
    if not tokenizer:

        def refuse(text: str) -> Sequence[int]:
            raise AlignkitError(
                'unit = "tokens" counts sampled tokens, and this text was not sampled; set '
                "tokenizer to the policy's path to have its tokens counted"
            )

        return refuse
    from transformers import AutoTokenizer

    encode = AutoTokenizer.from_pretrained(tokenizer)  # nosec B615 # runs no code of it
    return lambda text: list(encode(text, add_special_tokens=False)["input_ids"])


def finished(text: str) -> bool:
    """Return whether a response was not cut at its limit of tokens."""
    return not isinstance(text, Response) or text.completion.finish_reason != "length"


def length_penalty(length: int, *, free: int, span: int) -> float:
    """Return 0 up to ``free``, then falling linearly to -1 at ``free + span``.

    >>> [length_penalty(n, free=100, span=50) for n in (80, 100, 125, 150, 900)]
    [0.0, 0.0, -0.5, -1.0, -1.0]
    """
    return 0.0 - min(1.0, max(0, length - free) / span)


def overlong_penalty(length: int, *, max_length: int, cache: int) -> float:
    """Return DAPO's soft overlong punishment (arXiv:2503.14476, equation 13).

    0 up to max_length - cache; ((max_length - cache) - length) / cache up to max_length; then -1.

    >>> [overlong_penalty(n, max_length=20, cache=4) for n in (16, 17, 20, 21)]
    [0.0, -0.25, -1.0, -1.0]
    """
    return length_penalty(length, free=max_length - cache, span=cache)


def repetition_penalty(text: str, *, n: int) -> float:
    """Return minus the share of word n-grams that have occurred before in the response.

    Yeo et al., arXiv:2502.03373, appendix; 0 for a response shorter than n words.

    >>> repetition_penalty("a b a b a b", n=2)  # 5 bigrams, 2 distinct
    -0.6
    """
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return (len(set(grams)) - len(grams)) / len(grams) if grams else 0.0
