"""A reward that is another model's score of a response."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Protocol

from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Reward

PLACES = re.compile(r"\{(question|response|answer)\}")


def filled(template: str, question: str, response: str, answer: str) -> str:
    """Return the judge's prompt, with each text in its place verbatim.

    >>> filled("{question}|{response}", "{response}?", "4", "5")
    '{response}?|4'
    """
    texts = {"question": question, "response": response, "answer": answer}
    return PLACES.sub(lambda place: texts[place[1]], template)


def verdict(reply: str, pattern: re.Pattern[str], worst: float, best: float) -> float | None:
    """Return the last score of a reply, scaled to [0, 1], or None if there is none in range.

    >>> verdict("Clear. Score: 7", re.compile(r"Score: (\\d+)"), 1, 10)
    0.6666666666666666
    """
    found = pattern.findall(reply)
    try:
        score = float(found[-1])
    except (IndexError, ValueError, TypeError):
        return None
    low, high = sorted((worst, best))
    return (score - worst) / (best - worst) if low <= score <= high else None


class Model(Protocol):
    """What the judge asks: an endpoint, or a policy with its rollout backend."""

    def ask_all(self, texts: Sequence[str], /) -> Sequence[str | None]:
        """Return the reply to each text, None where none could be had."""
        ...

    def close(self) -> None:
        """Release what it holds; calling it twice is fine."""
        ...


class JudgeReward:
    """Asks a model about all responses.

    A response without a verdict has the part ``unjudged``: evaluations leave it out, and for
    training its total is the mean of the judged responses to its question (of all so far where
    there are none), so that it has no effect on the policy.
    """

    def __init__(self, model: Model, template: str, read: Callable[[str], float | None]) -> None:
        self._model, self._template, self._read = model, template, read
        self._sum, self._count = 0.0, 0

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Return one reward per response; AlignkitError if there never was a verdict."""
        prompts = [
            filled(self._template, e.question, str(r), e.answer)
            for r, e in zip(responses, examples, strict=True)
        ]
        replies = self._model.ask_all(prompts)
        scores = [None if reply is None else self._read(reply) for reply in replies]
        had: dict[str, list[float]] = defaultdict(list)
        for score, example in zip(scores, examples, strict=True):
            if score is not None:
                had[example.id].append(score)
                self._sum, self._count = self._sum + score, self._count + 1
        return [
            Reward(score, {"judge": score, "unjudged": 0.0})
            if score is not None
            else Reward(self._instead(had[example.id]), {"unjudged": 1.0})
            for score, example in zip(scores, examples, strict=True)
        ]

    def _instead(self, others: Sequence[float]) -> float:
        if others:
            return fmean(others)
        if not self._count:
            raise AlignkitError(
                "reward judge: no verdict could be had so far; look at the endpoint, the limits "
                "(timeout, retries, token_budget) and what pattern finds in its replies"
            )
        return self._sum / self._count

    def close(self) -> None:
        """Release threads, connections and engines; calling it twice is fine."""
        self._model.close()
