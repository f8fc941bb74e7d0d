"""Worked solutions in the forms a response can take, right or spoilt.

Each starts with a space, because a response goes on from the ``<think>`` of its prompt.
"""

from __future__ import annotations

from random import Random

from .problems import Problem

SLIPS = (-10, -2, -1, 1, 2, 10)
"""By how much a wrong result misses."""


def steps(problem: Problem) -> str:
    """Return the equations as text.

    >>> from maker.problems import Equation
    >>> steps(Problem("", (Equation(3, "+", 4), Equation(7, "*", 2))))
    ' 3 + 4 = 7 . 7 * 2 = 14 .'
    """
    return "".join(f" {e.left} {e.op} {e.right} = {e.value} ." for e in problem.equations)


def tagged(problem: Problem) -> str:
    """Return the response that r1_zero asks for."""
    return _tag(steps(problem), problem.answer)


def prose(problem: Problem) -> str:
    """Return a response that is right, but not in the asked form."""
    return f"{steps(problem)} The answer is {problem.answer} ."


def boxed(problem: Problem) -> str:
    r"""Return a response that ends in ``\boxed{}``, as question_only wants it."""
    return rf"{steps(problem)} \boxed{{{problem.answer}}}"


def slipped(problem: Problem, rng: Random) -> str:
    """Return the asked form with a slip in the last equation, so that the answer is wrong."""
    wrong = problem.answer + rng.choice([s for s in SLIPS if problem.answer + s > 0])
    head, equals, _ = steps(problem).rpartition(" = ")
    return _tag(f"{head}{equals}{wrong} .", wrong)


def _tag(thinking: str, answer: int) -> str:
    return f"{thinking} </think> <answer> {answer} </answer>"
