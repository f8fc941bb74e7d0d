"""Sets given by a description: ``{x | x > 2}``, differences, excluded points, no solution."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from alignkit_rewards.answers.algebra.compare import real_value
from alignkit_rewards.answers.shapes.nodes import Bag, Group, Node, Scalar

_BUILDER = re.compile(
    r"\s*+(?P<name>[a-z])\s*+(?P<domain>\\in\s*+(?:\\mathbb\s*+(?:\{\s*+)?R\s*+\}?|R)\s*+)?"
    r"(?:[|:]|(?:,\s*+)?\\text\s*+\{\s*+such that\s*+\})(?P<condition>.+)",
    re.S,
)
_EMPTY = re.compile(
    r"(?:\\text ?\{ ?)?(?:\\emptyset|\\\{ ?\\\}|\{ ?\}|(?:there (?:is|are) |has )?"
    r"no (?:real |such )?(?:solutions?|roots?)(?: exists?)?|(?:the )?(?:empty|null) set|none)"
    r"(?: ?\})?",
    re.I,
)

_MAY_BE_EMPTY = re.compile(r"\s*(?:\\[et{]|[{tThHnNeE])")


def is_empty(text: str) -> bool:
    r"""Return whether a text says that there is no solution.

    >>> [is_empty(t) for t in (r"\emptyset", r"\{\}", "No real solutions", "one solution")]
    [True, True, True, False]
    """
    return len(text) < 60 and bool(_MAY_BE_EMPTY.match(text) and _EMPTY.fullmatch(text.strip()))


def condition(inner: str) -> str:
    r"""Return the condition of a set builder over the reals, ``""`` if there is none.

    >>> condition(r" x \in \mathbb{R} | x > 2"), condition("1, 2")
    ('x > 2', '')
    """
    found = _BUILDER.fullmatch(inner)
    return found["condition"].strip() if found else ""


def without(intervals: Sequence[Group], points: Sequence[Node]) -> list[Group] | None:
    """Remove points from disjoint intervals; None if a bound or a point has no real value.

    >>> low, mid, high = (Scalar(t, ("num", Fraction(t), 0)) for t in "012")
    >>> [(g.left, g.right) for g in without([Group("", (low, high), "[", "]")], [mid])]
    [('[', ')'), ('(', ']')]
    """
    left = list(intervals)
    for point in points:
        if number(point) is None:
            return None
        parts = [_cut(group, point) for group in left]
        if any(part is None for part in parts):
            return None
        left = [group for part in parts if part for group in part]
    return left


def _cut(group: Group, point: Node) -> list[Group] | None:
    low, high = group.items
    at, start, end = number(point), number(low), number(high)
    if at is None or start is None or end is None:
        return None
    if at in {start, end}:
        opened = ("(" if at == start else group.left), (")" if at == end else group.right)
        return [Group(group.text, group.items, *opened)]
    if not start < at < end:
        return [group]
    return [
        Group(group.text, (low, point), group.left, ")"),
        Group(group.text, (point, high), "(", group.right),
    ]


def number(node: Node) -> Fraction | float | None:
    """Return the real value of a constant, which may be infinite."""
    if not isinstance(node, Scalar) or node.tree is None:
        return None
    if node.tree == ("const", "inf"):
        return float("inf")
    if node.tree == ("neg", ("const", "inf")):
        return float("-inf")
    return real_value(node.tree)


def points_of(node: Node) -> tuple[Node, ...] | None:
    """Return the constants of a set or list, None if it holds anything else."""
    items = node.items if isinstance(node, Bag) else (node,)
    return items if all(number(item) is not None for item in items) else None
