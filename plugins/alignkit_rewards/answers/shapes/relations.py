"""Equations, inequalities and named values."""

from __future__ import annotations

import re
from fractions import Fraction

from mpmath import mp  # type: ignore[import-untyped]

from alignkit_rewards.answers.algebra.compare import same_everywhere
from alignkit_rewards.answers.algebra.numeric import Point, points, precision, value
from alignkit_rewards.answers.algebra.trees import NoValueError, Tree, names
from alignkit_rewards.answers.shapes.intervals import FLIPPED, Same, same_intervals
from alignkit_rewards.answers.shapes.nodes import (
    Bag,
    Group,
    Node,
    Ratio,
    Relation,
    Scalar,
    Text,
    Union,
)
from alignkit_rewards.answers.shapes.scalars import squeeze

_EQUAL = frozenset({"=", "~"})
_MULTIPLE = re.compile(
    r"-?\d[\d.]*\*?[a-zA-Z]|-[a-zA-Z]|[a-zA-Z]/\d+|\\frac\{?[a-zA-Z]\}?\{?\d+\}?"
)
_FUNCTION_NAME = re.compile(r"([A-Za-z])(?:\^\{?-1\}?)?\([A-Za-z](?:,[A-Za-z])*\)")
_MARKS = re.compile(r"_\{[^{}]*\}|_\w|\\[A-Za-z]+|\^\{?-1\}?")
_COMPUTED = re.compile(r"[\d+^]|(?<=\S)-")


def same_relation(gold: Node, answer: Node, same: Same) -> bool:
    """Compare two nodes of which at least one is a relation."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _both(gold, answer, same)
    if same_intervals(gold, answer, same):
        return True
    if isinstance(gold, Relation):
        return _names_a_value(gold) and any(same(v, answer) for v in _values(gold))
    assert isinstance(answer, Relation)
    return _gives_a_value(answer) and any(same(gold, v) for v in _values(answer))


def _values(relation: Relation) -> tuple[Node, ...]:
    """Return the result of an equation chain: its last side, and the exact one before ``≈``."""
    if relation.signs[-1] != "in" and not set(relation.signs) <= _EQUAL:
        return ()
    return relation.sides[: -3 if relation.signs[-1] == "~" else -2 : -1]


def _names_a_value(relation: Relation) -> bool:
    """Return whether the left side only names the right side: x, f(x), |AB|, NO/BO.

    ``a + 3z = 0`` is an equation: its right side alone is not the answer.
    """
    side = relation.sides[0]
    if _is_computed(side) and not all(map(_is_computed, relation.sides)):
        return False  # 7 = 11a + c
    if _is_multiple(side):
        return False
    if len(relation.sides) > 2 or isinstance(side, Ratio | Text):
        return True
    if isinstance(side, Group | Bag):
        return all(isinstance(i, Scalar) and _is_name(i) for i in side.items)
    return isinstance(side, Scalar) and _is_name(side)


def _is_computed(side: Node) -> bool:
    """Return whether a side is a number or a calculation."""
    return isinstance(side, Scalar) and side.tree is not None and not names(side.tree)


def _is_multiple(side: Node) -> bool:
    """Return whether a side is a multiple of a variable: 2x, -x, x/3."""
    return isinstance(side, Scalar) and bool(_MULTIPLE.fullmatch(squeeze(side.text)))


def _is_name(side: Scalar) -> bool:
    if side.tree is not None and (side.tree[0] == "var" or not names(side.tree)):
        return True  # a variable, or a calculation as in 2 + 3 = 5
    text = _MARKS.sub("", side.text)
    return not _COMPUTED.search(text.strip())


def _gives_a_value(relation: Relation) -> bool:
    """Return whether an answer's last side is a result: not so in ``x^2 - 4 = 0``, ``2x = 6``."""
    first, last = relation.sides[0], relation.sides[-1]
    zero = isinstance(last, Scalar) and last.tree is not None and last.text.strip() == "0"
    return _names_a_value(relation) or not (zero or _is_multiple(first))


def _both(gold: Relation, answer: Relation, same: Same) -> bool:
    if set(gold.signs) <= _EQUAL and set(answer.signs) <= _EQUAL:
        named = _same_name(gold, answer)
        if named and any(same(g, a) for g in _values(gold) for a in _values(answer)):
            return True
        return _equivalent(gold, answer)
    if gold.signs == answer.signs == ("in",):
        return same(gold.sides[1], answer.sides[1])
    return (
        (_one_variable(gold, answer) and same_intervals(gold, answer, same))
        or _equivalent(gold, answer)
        or _same_sides(gold, answer, same)
    )


def _one_variable(gold: Relation, answer: Relation) -> bool:
    return _variables(gold) == _variables(answer) or "in" in gold.signs + answer.signs


def _variables(relation: Relation) -> frozenset[str]:
    trees = [s.tree for s in relation.sides if isinstance(s, Scalar) and s.tree is not None]
    return frozenset().union(*(names(t) for t in trees))


def _same_name(gold: Relation, answer: Relation) -> bool:
    """Return whether both chains give the value of the same thing; a function may be called y."""
    if not (_names_a_value(gold) and _names_a_value(answer)):
        return False
    left, right = gold.sides[0], answer.sides[0]
    if any(
        isinstance(s, Scalar) and s.tree is not None and not names(s.tree) for s in (left, right)
    ):
        return True  # a calculation has no name
    spelled = squeeze(left.text), squeeze(right.text)
    if spelled[0] == spelled[1] or _is_collection(left) != _is_collection(right):
        return True
    return "y" in spelled and any(map(_FUNCTION_NAME.fullmatch, spelled))


def _is_collection(node: Node) -> bool:
    return isinstance(node, Bag | Group | Union)


def _same_sides(gold: Relation, answer: Relation, same: Same) -> bool:
    sides, signs = answer.sides, answer.signs
    if gold.signs != signs:
        sides, signs = sides[::-1], tuple(FLIPPED.get(s, s) for s in signs[::-1])
    return gold.signs == signs and all(map(same, gold.sides, sides))


# ---------------------------------------------------------------- equivalent by algebra


def _equivalent(gold: Relation, answer: Relation) -> bool:
    """Return whether two relations differ by moving terms and multiplying by a constant."""
    left, right = _difference(gold), _difference(answer)
    if left is None or right is None or names(left) != names(right) or not names(left):
        return False
    ratio = _constant_ratio(left, right)
    if ratio is None:
        return False
    sign = answer.signs[0] if mp.re(ratio) > 0 else FLIPPED.get(answer.signs[0], "?")
    return {sign, gold.signs[0]} <= _EQUAL or (sign == gold.signs[0] and sign in FLIPPED)


def _difference(relation: Relation) -> Tree | None:
    """Return the left side minus the right side, None if they are not expressions."""
    trees = [s.tree for s in relation.sides if isinstance(s, Scalar) and s.tree is not None]
    if len(trees) != 2 or len(relation.sides) != 2 or "mat" in {t[0] for t in trees}:
        return None
    return ("add", trees[0], ("neg", trees[1]))


def _constant_ratio(a: Tree, b: Tree) -> object:
    """Return the constant c with a = c·b, None if there is none."""
    with mp.workdps(precision(a, b)):
        for point in points(names(a)):
            try:
                top, bottom = value(a, point), value(b, point)
            except NoValueError:
                continue
            if bottom and top and not mp.im(top) and not mp.im(bottom):
                return top / bottom if _proportional(a, b, point) else None
    return None


def _proportional(a: Tree, b: Tree, point: Point) -> bool:
    """Compare a(x)·b(p) with b(x)·a(p) at many x."""
    fixed = {k: ("num", Fraction(str(mp.nstr(v, 20))), 0) for k, v in point.items()}
    return same_everywhere(("mul", a, _at(b, fixed)), ("mul", b, _at(a, fixed)))


def _at(tree: Tree, fixed: dict[str, Tree]) -> Tree:
    if tree[0] == "var":
        return fixed[tree[1]]
    return tuple(_at(t, fixed) if isinstance(t, tuple) else t for t in tree)
