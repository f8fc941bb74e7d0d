"""Compare two single expressions with their units, percent signs and number bases."""

from __future__ import annotations

import re
from fractions import Fraction

from alignkit_rewards.answers.algebra.commands import tree_of
from alignkit_rewards.answers.algebra.compare import constant, same_tree
from alignkit_rewards.answers.algebra.trees import Tree, names
from alignkit_rewards.answers.shapes import symbolic
from alignkit_rewards.answers.shapes.nodes import Scalar
from alignkit_rewards.answers.text.unit_names import scale
from alignkit_rewards.answers.text.units import letter_unit
from alignkit_rewards.answers.verdict import Conventions

_HUNDRED: Tree = ("num", Fraction(100), 0)
_BASED = re.compile(r"(\d+) ?_ ?\{? ?(\d+) ?\}?")

_NEEDLESS_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_BRACED_SIGN = re.compile(r"\{(\w)\}")


def same_scalar(gold: Scalar, answer: Scalar, rules: Conventions) -> bool:
    """Return whether two scalars are equal under the conventions."""
    if bool(gold.unit) != bool(answer.unit):
        gold, answer = _with_letters(gold, answer.unit), _with_letters(answer, gold.unit)
    factor = scale(gold.unit, answer.unit, convert=rules.unit_conversion)
    if factor is None:
        return False
    if factor != 1:
        answer = _scaled(answer, factor)
    if gold.text == answer.text or squeeze(gold.text) == squeeze(answer.text):
        return gold.percent == answer.percent or rules.percent != "value"
    if based := _BASED.fullmatch(gold.text):
        return _same_in_base(based, answer.text)
    if gold.tree is None or answer.tree is None:
        return symbolic.same(gold.text, answer.text)
    if not rules.unsimplified and constant(gold.tree) is not None and not _is_plain(answer.tree):
        return False
    answer_tree = answer.tree
    if "C" in gold.text:
        answer_tree = _with_constant_of(gold.tree, answer.tree)
    pairs = _readings(gold.tree, answer_tree, gold.percent, answer.percent, rules)
    return any(same_tree(g, a, rounding=rules.rounding) for g, a in pairs)


def _with_letters(side: Scalar, wanted: str) -> Scalar:
    """Read letters after a number as a unit if the other side has one."""
    if not wanted or not any(map(str.isalpha, side.text)):
        return side
    core, unit = letter_unit(side.text, wanted)
    return Scalar(core, tree_of(core), side.percent, unit) if unit else side


def _scaled(side: Scalar, factor: Fraction) -> Scalar:
    tree = side.tree and ("mul", ("num", factor, 0), side.tree)
    return Scalar(f"{factor} * ({side.text})", tree, side.percent, side.unit)


def _with_constant_of(gold: Tree, answer: Tree) -> Tree:
    """Call an answer's constant of integration ``C``, if the gold has one of that name."""
    if not _is_constant_added(gold, "C") or "C" in names(answer):
        return answer
    new = names(answer) - names(gold)
    if len(new) != 1 or not new <= {"c", "K", "k", "C_1", "c_1", "D"}:
        return answer
    return _renamed(answer, *new) if _is_constant_added(answer, *new) else answer


def _is_constant_added(tree: Tree, name: str) -> bool:
    """Return whether ``tree`` is the variable ``name`` plus a function of other variables."""
    terms, variable = _terms(tree), ("var", name)
    others = [names(t) for t in terms if t != variable]
    return len(terms) - len(others) == 1 and any(others) and not any(name in o for o in others)


def _terms(tree: Tree) -> list[Tree]:
    return [*_terms(tree[1]), *_terms(tree[2])] if tree[0] == "add" else [tree]


def _renamed(tree: Tree, name: str) -> Tree:
    if tree == ("var", name):
        return ("var", "C")
    return tuple(_renamed(t, name) if isinstance(t, tuple) else t for t in tree)


def squeeze(text: str) -> str:
    """Return ``text`` without white space and redundant braces, to compare spellings."""
    if " " in text or not text.isprintable():
        text = _NEEDLESS_SPACE.sub("", text)
    return _BRACED_SIGN.sub(lambda m: m[1], text) if "{" in text else text


def _same_in_base(gold: re.Match[str], answer: str) -> bool:
    """Compare numerals such as ``52_8``; the question names the base, so it may be left out."""
    other = _BASED.fullmatch(answer)
    return (other.groups() if other else (answer, gold[2])) == gold.groups()


def _readings(
    gold: Tree, answer: Tree, gold_percent: bool, answer_percent: bool, rules: Conventions
) -> list[tuple[Tree, Tree]]:
    """Return the pairs of trees to compare: a percent sign on one side has two readings."""
    if gold_percent == answer_percent:
        return [(gold, answer)]
    hundredth = (
        ("div", gold, _HUNDRED) if gold_percent else gold,
        ("div", answer, _HUNDRED) if answer_percent else answer,
    )
    found = {"sign": [(gold, answer)], "value": [hundredth], "either": [(gold, answer), hundredth]}
    return found[rules.percent]


def _is_plain(tree: Tree) -> bool:
    """Return whether a tree is a number as people write results: 7, -0.5, 3/4, 1 3/4."""
    if tree[0] == "neg":
        return _is_plain(tree[1])
    if tree[0] == "add":
        return bool(tree[1][0] == "num" and tree[2][0] == "div") and _is_plain(tree[2])
    if tree[0] != "div" or tree[1][0] not in {"num", "neg"} or tree[2][0] != "num":
        return bool(tree[0] == "num")
    top, bottom = constant(tree[1]), constant(tree[2])
    return bool(top and bottom) and Fraction(top or 0, bottom or 1).denominator == bottom
