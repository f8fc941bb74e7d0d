"""The rewards that compare an answer with the gold: r1_zero and question_only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from alignkit.protocols import Example, Reward
from alignkit_rewards.answers import Conventions, Verdict, quick
from alignkit_rewards.formats import final_answer
from alignkit_rewards.pool import Batch, shared_pool

UNPARSED = frozenset({"unparsed", "too long"})
GIVEN_UP = frozenset({"timed out", "out of memory", "crashed"})


@dataclass(frozen=True, slots=True)
class Pending:
    """Responses being judged while the caller goes on."""

    verdicts: list[Verdict | None]
    """Per response; None where a worker decides."""
    formatted: list[bool]
    batch: Batch | None

    def judged(self) -> list[Verdict]:
        """Wait, and return one verdict per response."""
        late = iter(self.batch.result()) if self.batch else iter(())
        return [v if v is not None else next(late) for v in self.verdicts]

    def result(self) -> list[Reward]:
        """Wait, and return one reward per response."""
        return [_reward(v, f) for v, f in zip(self.judged(), self.formatted, strict=True)]


class GradedReward:
    """A reward function: 1 for a right answer in the right place, else 0."""

    def __init__(
        self,
        extract: Callable[[str], str | None],
        rules: Conventions,
        *,
        timeout: float,
        also_accepted: str = "",
    ) -> None:
        self._extract = extract
        self._rules = rules
        self._timeout = timeout
        self._also_accepted = also_accepted

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Judge every response against its example's answer."""
        return self.submit(responses, examples).result()

    def submit(self, responses: Sequence[str], examples: Sequence[Example]) -> Pending:
        """Start judging and return at once; ``.result()`` of what is returned waits."""
        answers = [self._extract(r) for r in responses]
        golds = [self._golds(e) for e in examples]
        verdicts = [
            Verdict(False, "no answer") if a is None else quick(g, a, self._rules)
            for a, g in zip(answers, golds, strict=True)
        ]
        left = [i for i, verdict in enumerate(verdicts) if verdict is None]
        pairs = [(golds[i], answers[i] or "") for i in left]
        batch = shared_pool().submit(pairs, self._rules, self._timeout) if pairs else None
        return Pending(verdicts, [a is not None for a in answers], batch)

    def read(self, response: str) -> str | None:
        """Return the answer that a response votes for, its boxes read as the verdicts read them."""
        return final_answer(response, several=self._rules.several_boxes)

    def close(self) -> None:
        """Nothing to release: the workers belong to the process and end with it."""

    def _golds(self, example: Example) -> tuple[str, ...]:
        more = example.extra.get(self._also_accepted) if self._also_accepted else None
        return (*accepted(example.answer), *example.also_accepted, *accepted(more))


def accepted(gold: object) -> tuple[str, ...]:
    """Return the accepted answers as strings: a gold may be text, a number or several.

    >>> accepted(3), accepted(["1/2", 0.5]), accepted(None)
    (('3',), ('1/2', '0.5'), ())
    """
    if gold is None:
        return ()
    if isinstance(gold, Iterable) and not isinstance(gold, str):
        return tuple(text for item in gold for text in accepted(item))
    return (str(gold),)


def _reward(verdict: Verdict, formatted: bool) -> Reward:
    parts = {"format": float(formatted), "answer": float(verdict.correct)}
    if verdict.why in GIVEN_UP:
        parts["timed_out"] = 1.0
    if verdict.why in UNPARSED:
        parts["unparsed"] = 1.0
    return Reward(parts["answer"], parts)
