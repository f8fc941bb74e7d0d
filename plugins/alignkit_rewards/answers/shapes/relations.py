"""Equations, inequalities and named values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mpmath import mp  # type: ignore[import-untyped]

from alignkit_rewards.exact import NotExactError, NoValueError, names, residue
from alignkit_rewards.expression import Tree
from alignkit_rewards.intervals import as_intervals
from alignkit_rewards.numeric import agree, points, precision, value
from alignkit_rewards.scalars import squeeze
from alignkit_rewards.structure import Bag, Group, Node, Ratio, Relation, Scalar, Text, Union

if TYPE_CHECKING:
    from alignkit_rewards.equality import Comparer

_EQUAL = frozenset({"=", "~"})
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "=", "~": "~"}
_FUNCTION_NAME = re.compile(r"([A-Za-z])(?:\^\{?-1\}?)?\([A-Za-z](?:,[A-Za-z])*\)")


def same_relation(gold: Node, answer: Node, compare: Comparer) -> bool:
    """Compare two nodes of which at least one is a relation."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _both(gold, answer, compare)
    if isinstance(gold, Relation):
        return _as_sets(gold, answer, compare) or (
            names_a_value(gold) and any(compare.same(v, answer) for v in values(gold))
        )
    assert isinstance(answer, Relation)
    return _as_sets(gold, answer, compare) or (
        _gives_a_value(answer) and any(compare.same(gold, v) for v in values(answer))
    )


def values(relation: Relation) -> list[Node]:
    """Return what an equation chain gives: its last side; before ``≈`` also the exact one."""
    if relation.signs[-1] == "in":
        return [relation.sides[-1]]
    if not set(relation.signs) <= _EQUAL:
        return []
    if relation.signs[-1] == "~":
        return [relation.sides[-1], relation.sides[-2]]
    return [relation.sides[-1]]


def names_a_value(relation: Relation) -> bool:
    """Return whether the left side only names what the right side gives: x, f(x), |AB|, NO/BO.

    ``a + 3z = 0`` is an equation: its right side alone is not the answer.
    """
    if len(relation.sides) > 2:
        return True
    side = relation.sides[0]
    if isinstance(side, Group | Bag):
        return all(isinstance(i, Scalar) and _is_name(i) for i in side.items)
    if isinstance(side, Ratio | Text):
        return True
    return isinstance(side, Scalar) and _is_name(side)


def _is_name(side: Scalar) -> bool:
    if side.tree is not None and side.tree[0] == "var":
        return True
    if side.tree is not None and not names(side.tree):
        return True  # a computation, as in 2 + 3 = 5
    text = re.sub(r"_\{[^{}]*\}|_\w|\\[A-Za-z]+|\^\{?-1\}?", "", side.text)
    return not re.search(r"[\d+^]|(?<=\S)-", text.strip())


def _gives_a_value(relation: Relation) -> bool:
    """Return whether an answer's last side is a result: not so in ``x^2 - 4 = 0``."""
    last = relation.sides[-1]
    zero = isinstance(last, Scalar) and last.tree is not None and last.text.strip() == "0"
    return names_a_value(relation) or not zero


def _as_sets(gold: Node, answer: Node, compare: Comparer) -> bool:
    left, right = as_intervals(gold), as_intervals(answer)
    if left is None or right is None or len(left) != len(right):
        return False
    return compare._matched_intervals(left, right)


def _both(gold: Relation, answer: Relation, compare: Comparer) -> bool:
    if set(gold.signs) <= _EQUAL and set(answer.signs) <= _EQUAL:
        if _same_name(gold, answer) and any(
            compare.same(g, a) for g in values(gold) for a in values(answer)
        ):
            return True
        return _equivalent(gold, answer)
    if gold.signs == answer.signs == ("in",):
        return compare.same(gold.sides[1], answer.sides[1])
    return (
        (_one_variable(gold, answer) and _as_sets(gold, answer, compare))
        or _equivalent(gold, answer)
        or _same_sides(gold, answer, compare)
    )


def _one_variable(gold: Relation, answer: Relation) -> bool:
    return _variables(gold) == _variables(answer) or "in" in gold.signs + answer.signs


def _variables(relation: Relation) -> frozenset[str]:
    trees = [s.tree for s in relation.sides if isinstance(s, Scalar) and s.tree is not None]
    return frozenset().union(*(names(t) for t in trees))


def _same_name(gold: Relation, answer: Relation) -> bool:
    """Return whether both chains give the value of one thing."""
    if not (names_a_value(gold) and names_a_value(answer)):
        return False
    left, right = gold.sides[0], answer.sides[0]
    if squeeze(left.text) == squeeze(right.text):
        return True
    computed = [
        isinstance(s, Scalar) and s.tree is not None and not names(s.tree) for s in (left, right)
    ]
    # a function may be called y; a computation has no name
    return any(computed) or bool(
        (_FUNCTION_NAME.fullmatch(squeeze(left.text)) and squeeze(right.text) == "y")
        or (_FUNCTION_NAME.fullmatch(squeeze(right.text)) and squeeze(left.text) == "y")
        or isinstance(left, Bag | Group | Union) != isinstance(right, Bag | Group | Union)
    )


def _same_sides(gold: Relation, answer: Relation, compare: Comparer) -> bool:
    sides, signs = answer.sides, answer.signs
    if gold.signs != signs:
        sides, signs = sides[::-1], tuple(_FLIPPED.get(s, s) for s in signs[::-1])
    return gold.signs == signs and all(map(compare.same, gold.sides, sides))


def _equivalent(gold: Relation, answer: Relation) -> bool:
    """Return whether two relations differ by moving terms and multiplying by a constant."""
    if len(gold.signs) != 1 or len(answer.signs) != 1:
        return False
    left, right = _difference(gold), _difference(answer)
    if left is None or right is None or names(left) != names(right) or not names(left):
        return False
    ratio = _constant_ratio(left, right)
    if ratio is None:
        return False
    sign = answer.signs[0] if mp.re(ratio) > 0 else _FLIPPED.get(answer.signs[0], "?")
    if sign in _EQUAL and gold.signs[0] in _EQUAL:
        return True
    return sign == gold.signs[0] and sign in _FLIPPED


def _difference(relation: Relation) -> Tree | None:
    left, right = relation.sides
    if not (isinstance(left, Scalar) and isinstance(right, Scalar)):
        return None
    if left.tree is None or right.tree is None or "mat" in {left.tree[0], right.tree[0]}:
        return None
    return ("add", left.tree, ("neg", right.tree))


def _constant_ratio(a: Tree, b: Tree) -> object:
    """Return the constant c with a = c·b, None if there is none."""
    with mp.workdps(precision(a, b)):
        for point in points(names(a)):
            try:
                top, bottom = value(a, point), value(b, point)
                if not bottom or not top or mp.im(top) or mp.im(bottom):
                    continue
                return top / bottom if _proportional(a, b, point) else None
            except NoValueError:
                continue
    return None


def _proportional(a: Tree, b: Tree, point: object) -> bool:
    """Compare a(x)·b(p) with b(x)·a(p) at many x, and modulo a prime where that is possible."""
    from fractions import Fraction

    fixed = {k: ("num", Fraction(str(mp.nstr(v, 20))), 0) for k, v in dict(point).items()}  # type: ignore[call-overload]
    a_there, b_there = _at(a, fixed), _at(b, fixed)
    left, right = ("mul", a, b_there), ("mul", b, a_there)
    if agree(left, right) is not True:
        return False
    try:
        return residue(left) == residue(right)
    except (NotExactError, NoValueError):
        return True


def _at(tree: Tree, fixed: dict[str, Tree]) -> Tree:
    if tree[0] == "var":
        return fixed[tree[1]]
    return tuple(_at(t, fixed) if isinstance(t, tuple) else t for t in tree)
