"""Compare two trees: by exact arithmetic first, then numerically at random points."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from mpmath import mp  # type: ignore[import-untyped]

from alignkit_rewards.answers.algebra.exact import exact_value, residue
from alignkit_rewards.answers.algebra.literals import rounds
from alignkit_rewards.answers.algebra.numeric import agree, precision, value
from alignkit_rewards.answers.algebra.trees import NoValueError, Tree


def same_tree(gold: Tree, answer: Tree, *, rounding: int) -> bool:
    """Return whether two trees have the same value wherever both are defined.

    A decimal with at least ``rounding`` significant digits (0: never) also equals any value that
    rounds to it.
    """
    if gold == answer:
        return True
    if "mat" in {gold[0], answer[0]}:
        return _same_matrix(gold, answer, rounding)
    if _rounds(gold, answer, rounding) or _rounds(answer, gold, rounding):
        return True
    exact = constant(gold), constant(answer)
    return exact[0] == exact[1] if None not in exact else same_everywhere(gold, answer)


def same_everywhere(a: Tree, b: Tree) -> bool:
    """Return whether two trees agree at random points, and modulo a prime if they are rational."""
    if agree(a, b) is not True:
        return False
    try:
        return residue(a) == residue(b)
    except NoValueError:
        return True


@lru_cache(maxsize=8192)
def constant(tree: Tree) -> Fraction | None:
    """Return the value of a rational constant, None if it is not one or is too large."""
    try:
        return exact_value(tree)
    except NoValueError:
        return None


def _same_matrix(gold: Tree, answer: Tree, rounding: int) -> bool:
    if gold[0] != answer[0] or [len(r) for r in gold[1:]] != [len(r) for r in answer[1:]]:
        return False
    rows = zip(gold[1:], answer[1:], strict=True)
    pairs = [pair for left, right in rows for pair in zip(left[1:], right[1:], strict=True)]
    return all(same_tree(g, a, rounding=rounding) for g, a in pairs)


def _rounds(decimal: Tree, other: Tree, rounding: int) -> bool:
    """Return whether a decimal has enough digits to be compared by rounding the other side."""
    written = _decimal(decimal)
    if written is None or not 0 < rounding <= written[1]:
        return False
    number = real_value(other)
    return number is not None and rounds(written, number, rounding)


def _decimal(tree: Tree) -> tuple[Fraction, int] | None:
    if tree[0] == "neg":
        inner = _decimal(tree[1])
        return (-inner[0], inner[1]) if inner else None
    return (tree[1], tree[2]) if tree[0] == "num" and tree[2] else None


def real_value(tree: Tree) -> Fraction | None:
    """Return a real constant as a fraction, to the working precision."""
    exact = constant(tree)
    if exact is not None:
        return exact
    try:
        with mp.workdps(precision(tree)):
            number = value(tree, {})
            return None if mp.im(number) else Fraction(str(mp.nstr(mp.re(number), 50)))
    except (NoValueError, KeyError, ValueError):
        return None
