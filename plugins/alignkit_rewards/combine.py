"""A weighted sum of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignkit import AlignkitError
from alignkit.protocols import Closes, Example, Reward, RewardFn

SHARED = frozenset({"format", "answer", "timed_out", "unparsed"})
"""Parts that keep their bare name in the sum, so that their curves stay comparable."""


class WeightedSum:
    """Adds named rewards; each one's weighted share is a part of its own."""

    def __init__(self, terms: Mapping[str, RewardFn], weights: Mapping[str, float]) -> None:
        self._terms = terms
        self._weights = {name: weights.get(name, 1.0) for name in terms}

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Judge every response by every term."""
        return self.submit(responses, examples).result()

    def submit(self, responses: Sequence[str], examples: Sequence[Example]) -> Pending:
        """Start the terms that can work in the background; ``.result()`` waits for all."""
        started = {name: _submit(term, responses, examples) for name, term in self._terms.items()}
        return Pending(self, started, responses, examples)

    def close(self) -> None:
        """Close the terms that can be closed."""
        for term in self._terms.values():
            if isinstance(term, Closes):
                term.close()

    def add(self, columns: Mapping[str, Sequence[Reward]]) -> list[Reward]:
        """Add up the terms' rewards, row by row."""
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


class Pending:
    """Rewards of all terms, some of them still under way."""

    def __init__(
        self,
        owner: WeightedSum,
        started: Mapping[str, Any],
        responses: Sequence[str],
        examples: Sequence[Example],
    ) -> None:
        self._owner = owner
        self._started = started
        self._size = len(responses)

    def result(self) -> list[Reward]:
        """Wait for every term, and return one reward per response."""
        columns = {name: list(handle()) for name, handle in self._started.items()}
        for name, rewards in columns.items():
            if len(rewards) != self._size:
                raise AlignkitError(
                    f"reward {name!r} returned {len(rewards)} rewards for {self._size} responses"
                )
        return self._owner.add(columns)


def _submit(term: Any, responses: Sequence[str], examples: Sequence[Example]) -> Any:
    """Return a function that gives the term's rewards, started already if it can be."""
    if hasattr(term, "submit"):
        return term.submit(responses, examples).result
    return lambda: term(responses, examples)
