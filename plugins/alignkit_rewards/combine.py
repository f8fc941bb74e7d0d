"""A weighted sum of rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from alignkit import AlignkitError
from alignkit.abilities import judges
from alignkit.protocols import Closes, Example, Reads, Reward, RewardFn

SHARED = frozenset({"format", "answer", "timed_out", "unparsed"})
"""Parts that keep their bare name in the sum, so that their curves stay comparable."""

Waiting = Callable[[], Sequence[Reward]]
"""Function that waits for the rewards of one term."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Rewards of all terms, some of them still under way."""

    result: Callable[[], list[Reward]]
    """Waits for every term, and returns one reward per response."""


class WeightedSum:
    """Adds named rewards; each reward's weighted share is a part of its own."""

    def __init__(self, terms: Mapping[str, RewardFn], weights: Mapping[str, float]) -> None:
        self._terms = terms
        self._weights = {name: weights.get(name, 1.0) for name in terms}

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Judge every response with every term."""
        return self.submit(responses, examples).result()

    def submit(self, responses: Sequence[str], examples: Sequence[Example]) -> Pending:
        """Start the terms that can work in the background; ``.result()`` waits for all."""
        started = {name: _start(term, responses, examples) for name, term in self._terms.items()}
        return Pending(partial(self._add, started, len(responses)))

    def read(self, response: str) -> str | None:
        """Return the answer that the first term to read answers finds, else the whole response."""
        reader = next((term for term in self._terms.values() if isinstance(term, Reads)), None)
        return reader.read(response) if reader else response.strip() or None

    def close(self) -> None:
        """Close the terms that can be closed."""
        for term in self._terms.values():
            if isinstance(term, Closes):
                term.close()

    def _add(self, started: Mapping[str, Waiting], count: int) -> list[Reward]:
        columns = {name: list(wait()) for name, wait in started.items()}
        for name, rewards in columns.items():
            if len(rewards) != count:
                raise AlignkitError(
                    f"reward {name!r} returned {len(rewards)} rewards for {count} responses"
                )
        rows = zip(*columns.values(), strict=True)
        return [self._sum(dict(zip(columns, row, strict=True))) for row in rows]

    def _sum(self, rewards: Mapping[str, Reward]) -> Reward:
        shares = {name: self._weights[name] * reward.total for name, reward in rewards.items()}
        parts: dict[str, float] = {}
        for name, reward in rewards.items():
            for part, value in reward.parts.items():
                if part in SHARED and part not in parts:
                    parts[part] = value
                elif reward.parts != {part: reward.total}:
                    parts[f"{name}/{part}"] = value
        return Reward(sum(shares.values()), parts | {f"share/{n}": s for n, s in shares.items()})


def _start(term: RewardFn, responses: Sequence[str], examples: Sequence[Example]) -> Waiting:
    """Return a function that waits for the term's rewards, started already if possible."""
    if judges(term):
        return term.submit(responses, examples).result
    return partial(term, responses, examples)
