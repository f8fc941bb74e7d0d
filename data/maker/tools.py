"""Problems with numbers too large for the tiny policy's head, and ways to solve them.

They are told in the sentences of :mod:`maker.problems`: a product of a number of three digits and
one of two.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from random import Random

from .problems import COUNT, PRODUCT, Problem, Story

CALLED = 0.25
"""Share of solutions that call the calculator; the others do without."""

Part = tuple[str, bool]
"""A piece of a solution, and whether the calculator gives it."""


def draw(rng: Random) -> Problem:
    """Return one problem with one equation."""
    story = Story(rng)
    story.tell(PRODUCT, rng.randint(101, 399), "*", rng.randint(12, 49))
    story.sentences.append(rng.choice(COUNT).format(**story.words))
    return Problem(" ".join(story.sentences), tuple(story.equations))


def draw_distinct(n: int, rng: Random, taken: Container[str] = ()) -> list[Problem]:
    """Return ``n`` problems with different questions, none of them in ``taken``."""
    found: dict[str, Problem] = {}
    while len(found) < n:
        problem = draw(rng)
        if problem.question not in taken:
            found.setdefault(problem.question, problem)
    return list(found.values())


def solution(problem: Problem, *, called: bool) -> Sequence[Part]:
    """Return a right solution that goes on from ``<think>``, with the calculator or without.

    >>> from maker.problems import Equation
    >>> problem = Problem("", (Equation(120, "*", 12),))
    >>> [text for text, given in solution(problem, called=True) if given]
    [' <result> 1440 </result>']
    """
    (e,) = problem.equations
    asked, end = f" {e.left} {e.op} {e.right}", f" </think> <answer> {e.value} </answer>"
    if not called:
        return [(f"{asked} = {e.value} .{end}", False)]
    return [
        (f" <tool>{asked} </tool>", False),
        (f" <result> {e.value} </result>", True),
        (end, False),
    ]
