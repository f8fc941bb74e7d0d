r"""Compare sets of real numbers: intervals, unions, and inequalities that describe them."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from alignkit_rewards.answers.algebra.compare import real_value
from alignkit_rewards.answers.algebra.trees import names
from alignkit_rewards.answers.shapes.nodes import Bag, Group, Node, Relation, Scalar, Union
from alignkit_rewards.answers.shapes.sets import points_of, without

Same = Callable[[Node, Node], bool]
"""Whether an answer (second) equals the gold (first)."""

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "=", "~": "~"}
"""Each sign, read from the right."""

_INFINITY = Scalar("\\infty", ("const", "inf"))
_MINUS_INFINITY = Scalar("-\\infty", ("neg", ("const", "inf")))

MAX_PARTS = 50


def same_intervals(gold: Node, answer: Node, same: Same) -> bool:
    """Return whether both are sets of real numbers with the same intervals in some order."""
    left, rest = as_intervals(gold), as_intervals(answer)
    if left == [] and isinstance(gold, Bag):  # a gold is not empty: its "and" lists two parts
        left = _each(gold.items)
    if left is None or rest is None or len(left) != len(rest):
        return False
    for item in left:
        fit = next((other for other in rest if _same_interval(item, other, same)), None)
        if fit is None:
            return False
        rest.remove(fit)
    return True


def _same_interval(gold: Group, answer: Group, same: Same) -> bool:
    brackets = (gold.left, gold.right) == (answer.left, answer.right)
    return brackets and all(map(same, gold.items, answer.items))


def as_intervals(node: Node) -> list[Group] | None:
    """Return the disjoint intervals of the set that a node describes, None if it describes none."""
    if isinstance(node, Group):
        return [_open_at_infinity(node)] if len(node.items) == 2 else None
    if isinstance(node, Bag) and node.joint:
        return _meeting(node.items)
    if isinstance(node, Bag) and not node.braces and any(map(_excludes, node.items)):
        return _excluded(node.items)
    if isinstance(node, Union) or (isinstance(node, Bag) and not node.braces):
        return _each(node.items)
    return _from_relation(node) if isinstance(node, Relation) else None


def _each(items: tuple[Node, ...]) -> list[Group] | None:
    found: list[Group] = []
    for item in items[:MAX_PARTS]:
        part = as_intervals(item)
        if part is None:
            return None
        found += part
    return found if len(items) <= MAX_PARTS else None


def _meeting(items: tuple[Node, ...]) -> list[Group] | None:
    """Return the intersection of several sets, None if their bounds cannot be compared."""
    common: list[Group] = [_interval("(", _MINUS_INFINITY, _INFINITY, ")")]
    for item in items[:MAX_PARTS]:
        part = as_intervals(item)
        if part is None:
            return None
        met = [_overlap(a, b) for a in common for b in part]
        if None in met or len(met) > MAX_PARTS:
            return None
        common = [group for group in met if group and not _is_empty(group)]
    return common


def _overlap(a: Group, b: Group) -> Group | None:
    bounds = [[_place(item) for item in group.items] for group in (a, b)]
    if any(place is None for pair in bounds for place in pair):
        return None
    low = max((bounds[i][0] or 0, g.left == "(", i) for i, g in enumerate((a, b)))[2]
    high = min((bounds[i][1] or 0, g.right == "]", i) for i, g in enumerate((a, b)))[2]
    left, right = (a, b)[low], (a, b)[high]
    return _interval(left.left, left.items[0], right.items[1], right.right)


def _is_empty(group: Group) -> bool:
    low, high = (_place(item) or 0 for item in group.items)
    return low > high or (low == high and (group.left, group.right) != ("[", "]"))


def _place(node: Node) -> float | Fraction | None:
    """Return the value of a bound, None if it is not a real constant."""
    if not isinstance(node, Scalar) or node.tree is None:
        return None
    if _infinite(node):
        return math.inf if node.tree == _INFINITY.tree else -math.inf
    return real_value(node.tree)


def _excludes(node: Node) -> bool:
    """Return whether a node excludes points from the real numbers: x ≠ 2."""
    return (
        isinstance(node, Relation)
        and node.signs == ("!=",)
        and _is_name(node.sides[0])
        and points_of(node.sides[1]) is not None
    )


def _excluded(items: tuple[Node, ...]) -> list[Group] | None:
    """Remove excluded points from the reals (``x ≠ 1, 2``) or from one set (``x > 0, x ≠ 1``)."""
    points: list[Node] = []
    base = [_interval("(", _MINUS_INFINITY, _INFINITY, ")")]
    for place, item in enumerate(items):
        if _excludes(item) and isinstance(item, Relation):
            points += points_of(item.sides[1]) or ()
        elif isinstance(item, Scalar) and place and points_of(item):
            points.append(item)
        elif place or (first := as_intervals(item)) is None:
            return None
        else:
            base = first
    return without(base, points)


def _from_relation(node: Relation) -> list[Group] | None:
    sides, signs = node.sides, node.signs
    if signs == ("in",):
        return as_intervals(sides[1])
    if len(sides) == 2 and not _is_name(sides[0]):
        sides, signs = sides[::-1], tuple(FLIPPED.get(s, "?") for s in signs)
    if _excludes(node) and isinstance(sides[1], Bag):
        return _excluded((node,))
    if len(sides) == 2 and _is_name(sides[0]) and _is_constant(sides[1]):
        return _half_line(sides[1], signs[0])
    if len(sides) == 3 and _is_name(sides[1]):
        return _segment(sides[0], sides[2], signs)
    return None


def _edges(sign: str) -> tuple[str, str]:
    """Return the left and right brackets of the interval that corresponds to a sign."""
    return ("[", "]") if sign in {"<=", ">="} else ("(", ")")


def _half_line(bound: Node, sign: str) -> list[Group] | None:
    left, right = _edges(sign)
    below = _interval("(", _MINUS_INFINITY, bound, right)
    above = _interval(left, bound, _INFINITY, ")")
    return {"<": [below], "<=": [below], ">": [above], ">=": [above], "!=": [below, above]}.get(
        sign
    )


def _segment(low: Node, high: Node, signs: tuple[str, ...]) -> list[Group] | None:
    if set(signs) <= {">", ">="}:
        low, high, signs = high, low, tuple(FLIPPED[s] for s in signs[::-1])
    if not set(signs) <= {"<", "<="} or not (_is_constant(low) and _is_constant(high)):
        return None
    return [_interval(_edges(signs[0])[0], low, high, _edges(signs[1])[1])]


def _interval(left: str, low: Node, high: Node, right: str) -> Group:
    return _open_at_infinity(Group("interval", (low, high), left, right))


def _open_at_infinity(group: Group) -> Group:
    """Write ``[-oo, 1]`` as ``(-oo, 1]``, the only possible meaning."""
    low, high = group.items
    left = "(" if _infinite(low) else group.left
    right = ")" if _infinite(high) else group.right
    return Group(group.text, group.items, left, right)


def _infinite(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tree in {_INFINITY.tree, _MINUS_INFINITY.tree}


def _is_name(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tree is not None and node.tree[0] == "var"


def _is_constant(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tree is not None and not names(node.tree)
