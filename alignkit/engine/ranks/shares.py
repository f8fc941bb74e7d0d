"""Divide work among ranks: consecutive items for each, of about the same cost in total."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def slices(costs: Sequence[int], size: int) -> list[list[int]]:
    """Return the places of each rank's items, in order; each place is in exactly one list.

    An item goes where the middle of its cost lies on the line of all costs, cut into ``size``
    equal pieces: no rank has more than its piece and one item. Neighbours stay together, so
    responses to one prompt mostly share a rank and its computation.

    >>> slices([3, 3, 3, 3], 2), slices([9, 1, 1, 1], 2)
    ([[0, 1], [2, 3]], [[0], [1, 2, 3]])
    >>> slices([5], 2)
    [[], [0]]
    """
    costs = [max(cost, 1) for cost in costs]
    whole = sum(costs)
    found: list[list[int]] = [[] for _ in range(size)]
    for i, (cost, end) in enumerate(zip(costs, accumulate(costs), strict=True)):
        found[(2 * end - cost) * size // (2 * whole)].append(i)
    return found
