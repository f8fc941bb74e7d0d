"""Prompts dealt out to the ranks of a run, and what each of them found given to all."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.engine.ranks import Ranks
from alignkit.engine.sampling.answering import Answer
from alignkit.engine.sampling.transcript import Exchange


def dealt(ranks: Ranks, count: int, *, in_order: bool) -> list[int]:
    """Return the places of this rank's prompts, of ``count``.

    ``in_order`` leaves all to rank 0, for a reward or environment that remembers what it has seen.
    """
    if in_order and ranks.size > 1:
        return list(range(count)) if ranks.rank == 0 else []
    return list(range(ranks.rank, count, ranks.size))


def of_all(
    ranks: Ranks, mine: Sequence[int], groups: Sequence[Sequence[Answer]]
) -> list[list[Answer]]:
    """Return the groups of all ranks, in the order of the prompts."""
    if ranks.size == 1:
        return [list(group) for group in groups]
    own = {i: [_sent(a) for a in group] for i, group in zip(mine, groups, strict=True)}
    found = ranks.merge(own)
    ranks.let_in()
    return [[_received(*answer) for answer in group] for group in found.values()]


def _sent(answer: Answer) -> tuple[object, ...]:
    turns = [(t.response, t.tokens, t.observation, t.reward) for t in answer.turns]
    return answer.completion, answer.reward, turns, answer.cut


def _received(completion: object, reward: object, turns: object, cut: object) -> Answer:
    exchanges = tuple(Exchange(*turn) for turn in turns)  # type: ignore[attr-defined]
    return Answer(completion, reward, exchanges, cut)  # type: ignore[arg-type]
