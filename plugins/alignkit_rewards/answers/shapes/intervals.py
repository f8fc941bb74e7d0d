r"""Sets of real numbers: intervals, unions, and the inequalities that describe them."""

from __future__ import annotations

from alignkit_rewards.exact import names
from alignkit_rewards.structure import Bag, Group, Node, Relation, Scalar, Union

_INFINITY = Scalar("\\infty", ("const", "inf"))
_MINUS_INFINITY = Scalar("-\\infty", ("neg", ("const", "inf")))
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}

MAX_PARTS = 50


def as_intervals(node: Node) -> list[Group] | None:
    """Return the disjoint intervals a node stands for, None if it is no such set."""
    if isinstance(node, Group):
        return [_open_at_infinity(node)] if len(node.items) == 2 else None
    if isinstance(node, Union) or (isinstance(node, Bag) and not node.braces):
        return _each(node.items)
    if isinstance(node, Relation):
        return _from_relation(node)
    return None


def _each(items: tuple[Node, ...]) -> list[Group] | None:
    found: list[Group] = []
    for item in items[:MAX_PARTS]:
        part = as_intervals(item)
        if part is None:
            return None
        found += part
    return found if len(items) <= MAX_PARTS else None


def _from_relation(node: Relation) -> list[Group] | None:
    sides, signs = node.sides, node.signs
    if signs == ("in",):
        return as_intervals(sides[1])
    if len(sides) == 2 and not _is_name(sides[0]):
        sides, signs = sides[::-1], tuple(_FLIPPED.get(s, "?") for s in signs)
    if len(sides) == 2 and _is_name(sides[0]) and _is_constant(sides[1]):
        return _half_line(sides[1], signs[0])
    if len(sides) == 3 and _is_name(sides[1]):
        return _segment(sides[0], sides[2], signs)
    return None


def _half_line(bound: Node, sign: str) -> list[Group] | None:
    if sign in {"<", "<="}:
        return [_interval("(", _MINUS_INFINITY, bound, "]" if sign == "<=" else ")")]
    if sign in {">", ">="}:
        return [_interval("[" if sign == ">=" else "(", bound, _INFINITY, ")")]
    if sign == "!=":
        below = _interval("(", _MINUS_INFINITY, bound, ")")
        return [below, _interval("(", bound, _INFINITY, ")")]
    return None


def _segment(low: Node, high: Node, signs: tuple[str, ...]) -> list[Group] | None:
    if set(signs) <= {">", ">="}:
        low, high, signs = high, low, tuple(_FLIPPED[s] for s in signs[::-1])
    if not set(signs) <= {"<", "<="} or not (_is_constant(low) and _is_constant(high)):
        return None
    left, right = ("[" if signs[0] == "<=" else "("), ("]" if signs[1] == "<=" else ")")
    return [_interval(left, low, high, right)]


def _interval(left: str, low: Node, high: Node, right: str) -> Group:
    return _open_at_infinity(Group("interval", (low, high), left, right))


def _open_at_infinity(group: Group) -> Group:
    """Write ``[-oo, 1]`` as ``(-oo, 1]``: there is no other way to mean it."""
    low, high = group.items
    left = "(" if _infinite(low) else group.left
    right = ")" if _infinite(high) else group.right
    return Group(group.text, group.items, left, right)


def _infinite(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tree in {
        ("const", "inf"), ("neg", ("const", "inf")),
    }  # fmt: skip


def _is_name(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tree is not None and node.tree[0] == "var"


def _is_constant(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tree is not None and not names(node.tree)
