"""Are two expressions equal? Exact arithmetic first, then high-precision numbers at points."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from mpmath import mp  # type: ignore[import-untyped]

from alignkit_rewards import symbolic
from alignkit_rewards.exact import NotExactError, NoValueError, exact_value, residue
from alignkit_rewards.expression import Tree
from alignkit_rewards.literals import rounds_to
from alignkit_rewards.numeric import agree, precision, value
from alignkit_rewards.structure import Scalar
from alignkit_rewards.units import units_agree
from alignkit_rewards.verdict import Conventions

_HUNDRED: Tree = ("num", Fraction(100), 0)
_BASED = re.compile(r"(\d+) ?_ ?\{? ?(\d+) ?\}?")


def same_scalar(gold: Scalar, answer: Scalar, rules: Conventions) -> bool:
    """Return whether two scalars are equal under the conventions."""
    if not units_agree(gold.unit, answer.unit):
        return False
    if squeeze(gold.text) == squeeze(answer.text):
        return gold.percent == answer.percent or rules.percent != "value"
    if gold.tree is None or answer.tree is None:
        return symbolic.same(gold.text, answer.text)
    if based := _BASED.fullmatch(gold.text):
        return _same_in_base(based, answer.text)
    if not rules.unsimplified and _is_sum_left_undone(gold.tree, answer.tree):
        return False
    return any(same_tree(g, a, rules) for g, a in _readings(gold, answer, rules))


def squeeze(text: str) -> str:
    """Return ``text`` without white space and redundant braces, to compare spellings."""
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text))


def _same_in_base(gold: re.Match[str], answer: str) -> bool:
    """Compare numerals such as ``52_8``; the question names the base, so it may be left out."""
    other = _BASED.fullmatch(answer)
    return (other.groups() if other else (answer, gold[2])) == gold.groups()


def _readings(gold: Scalar, answer: Scalar, rules: Conventions) -> list[tuple[Tree, Tree]]:
    """Return the pairs of trees to compare: a percent sign on one side can be read two ways."""
    g, a = gold.tree, answer.tree
    assert g is not None
    assert a is not None
    if gold.percent == answer.percent:
        return [(g, a)]
    found: list[tuple[Tree, Tree]] = []
    if rules.percent in {"sign", "either"}:
        found.append((g, a))
    if rules.percent in {"value", "either"}:
        left = ("div", g, _HUNDRED) if gold.percent else g
        found.append((left, ("div", a, _HUNDRED) if answer.percent else a))
    return found


def same_tree(gold: Tree, answer: Tree, rules: Conventions) -> bool:
    """Return whether two trees have the same value wherever they have one."""
    if gold == answer:
        return True
    if "mat" in {gold[0], answer[0]}:
        return _same_matrix(gold, answer, rules)
    if _infinite(gold) or _infinite(answer):
        return _infinite(gold) == _infinite(answer)
    exact_gold, exact_answer = _exact(gold), _exact(answer)
    if exact_gold is not None and exact_answer is not None:
        return exact_gold == exact_answer or _rounds(gold, answer, rules)
    if _rounds(gold, answer, rules):
        return True
    return agree(gold, answer) is True and not contradicted(gold, answer)


def contradicted(a: Tree, b: Tree) -> bool:
    """Return whether arithmetic modulo a prime proves two rational expressions different."""
    try:
        return residue(a) != residue(b)
    except (NotExactError, NoValueError):
        return False


@lru_cache(maxsize=8192)
def _exact(tree: Tree) -> Fraction | None:
    try:
        return exact_value(tree)
    except (NotExactError, NoValueError):
        return None


def _same_matrix(gold: Tree, answer: Tree, rules: Conventions) -> bool:
    if gold[0] != answer[0] or [len(r) for r in gold[1:]] != [len(r) for r in answer[1:]]:
        return False
    pairs = zip(gold[1:], answer[1:], strict=True)
    return all(
        same_tree(g, a, rules)
        for left, right in pairs
        for g, a in zip(left[1:], right[1:], strict=True)
    )


def _infinite(tree: Tree) -> int:
    """Return 1 or -1 for an infinity, else 0."""
    if tree == ("const", "inf"):
        return 1
    return -_infinite(tree[1]) if tree[0] == "neg" else 0


def _rounds(gold: Tree, answer: Tree, rules: Conventions) -> bool:
    """Return whether one side is a decimal long enough to stand for the other side's value."""
    for decimal, other in ((gold, answer), (answer, gold)):
        written = _decimal(decimal)
        if written is None or not 0 < rules.rounding <= written[1]:
            continue
        number = _constant_value(other)
        if number is not None and rounds_to(written, (number, 0), rounding=rules.rounding):
            return True
    return False


def _decimal(tree: Tree) -> tuple[Fraction, int] | None:
    if tree[0] == "neg":
        inner = _decimal(tree[1])
        return (-inner[0], inner[1]) if inner else None
    return (tree[1], tree[2]) if tree[0] == "num" and tree[2] else None


def _constant_value(tree: Tree) -> Fraction | None:
    """Return a real constant as a fraction, to working precision."""
    exact = _exact(tree)
    if exact is not None:
        return exact
    try:
        with mp.workdps(precision(tree)):
            number = value(tree, {})
            return None if mp.im(number) else Fraction(str(mp.nstr(mp.re(number), 50)))
    except (NoValueError, KeyError, ValueError):
        return None


def _is_sum_left_undone(gold: Tree, answer: Tree) -> bool:
    """Return whether a rational gold is answered by an expression still to be worked out."""
    return _exact(gold) is not None and not _is_plain(answer)


def _is_plain(tree: Tree) -> bool:
    """Return whether a tree is a number as people write results: 7, -0.5, 3/4, 1 3/4."""
    if tree[0] == "neg":
        return _is_plain(tree[1])
    if tree[0] == "num":
        return True
    if tree[0] == "add":
        return tree[1][0] == "num" and tree[2][0] == "div" and _is_plain(tree[2])
    if tree[0] != "div" or tree[1][0] not in {"num", "neg"} or tree[2][0] != "num":
        return False
    top = _exact(tree[1])
    bottom = _exact(tree[2])
    return bool(top and bottom) and Fraction(top or 0, bottom or 1).denominator == bottom
