"""Compare two answers part by part; their shapes are in :mod:`.nodes`."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from alignkit_rewards.answers.shapes.intervals import Same, same_intervals
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
from alignkit_rewards.answers.shapes.relations import same_relation
from alignkit_rewards.answers.shapes.scalars import same_scalar, squeeze
from alignkit_rewards.answers.shapes.times import same_time
from alignkit_rewards.answers.text.named import same_words
from alignkit_rewards.answers.verdict import Conventions

MAX_ITEMS = 200
_CLOCK = re.compile(r"\d{1,2}:0\d(?!\d)")


class Comparer:
    """Equality under given conventions; :meth:`same` takes the gold first."""

    def __init__(self, rules: Conventions) -> None:
        self._rules = rules
        self._by_shape: dict[type[Node], Same] = {
            Text: lambda gold, answer: same_words(gold.text, answer.text),
            Relation: lambda gold, answer: same_relation(gold, answer, self.same),
            Ratio: self._same_ratio,
            Union: lambda gold, answer: same_intervals(gold, answer, self.same),
            Scalar: self._same_beside_scalar,
        }

    def same(self, gold: Node, answer: Node) -> bool:
        """Return whether ``answer`` equals ``gold``."""
        if isinstance(gold, Scalar) and isinstance(answer, Scalar):
            timed = self._same_time(gold, answer) if gold.unit or answer.unit else None
            return same_scalar(gold, answer, self._rules) if timed is None else timed
        if (timed := self._same_time(gold, answer)) is not None:
            return timed
        if squeeze(gold.text) == squeeze(answer.text):
            return True
        for shape, compare in self._by_shape.items():
            if isinstance(gold, shape) or isinstance(answer, shape):
                return compare(gold, answer)
        return self._same_collection(gold, answer)

    @staticmethod
    def _same_time(gold: Node, answer: Node) -> bool | None:
        """Compare times of day, if one was parsed as a ratio or has "am" or "pm"."""
        if any(
            isinstance(n, Ratio) or getattr(n, "unit", "") in {"am", "pm"} for n in (gold, answer)
        ):
            return same_time(gold, answer)
        return None

    # -------------------------------------------------------------- collections

    def _same_collection(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Bag) and isinstance(answer, Bag):
            return self._same_bag(gold, answer)
        assert isinstance(gold, Bag | Group)
        assert isinstance(answer, Bag | Group)
        named = coordinates(gold if isinstance(gold, Bag) else answer)
        if named is not None:
            point = answer if isinstance(gold, Bag) else gold
            return self._ordered(point.items, named)
        if _are_sets(gold, answer):
            return same_intervals(gold, answer, self.same)
        return self._ordered(gold.items, answer.items)

    def _ordered(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        return len(gold) == len(answer) and all(map(self.same, gold, answer))

    def _same_bag(self, gold: Bag, answer: Bag) -> bool:
        left, right = list(gold.items), list(answer.items)
        if max(len(left), len(right)) > MAX_ITEMS:
            return False
        if self._rules.list_order == "kept" and not (gold.braces or answer.braces):
            return self._ordered(left, right)
        if gold.braces and answer.braces:
            left, right = self._distinct(left), self._distinct(right)
        if len(right) > len(left) == len(self._distinct(left)):
            right = self._distinct(right)  # the same solution given twice
        return self._matched(left, right) or same_intervals(gold, answer, self.same)

    def _distinct(self, items: list[Node]) -> list[Node]:
        kept: list[Node] = []
        for item in items[:50]:
            if not any(self.same(k, item) for k in kept):
                kept.append(item)
        return kept + items[50:]

    def _matched(self, gold: list[Node], answer: list[Node]) -> bool:
        """Return whether the items can be matched one to one."""
        left = list(answer)
        for item in gold:
            place = next((i for i, other in enumerate(left) if self.same(item, other)), None)
            if place is None:
                return False
            left.pop(place)
        return not left

    # -------------------------------------------------------------- mixed shapes

    def _same_beside_scalar(self, gold: Node, answer: Node) -> bool:
        """Compare a column or row matrix with a tuple, a list of equal items with one item."""
        scalar, other = (gold, answer) if isinstance(gold, Scalar) else (answer, gold)
        assert isinstance(scalar, Scalar)
        if isinstance(other, Bag) and other.items and not other.braces:
            first = gold if other is answer else other.items[0]  # as in "1/2 or 0.5"
            return all(self.same(first, item) for item in (*other.items, scalar))
        entries = _vector(scalar)
        if entries is None or not isinstance(other, Group):
            return False
        return self._ordered(entries, other.items)

    def _same_ratio(self, gold: Node, answer: Node) -> bool:
        """Compare ratios by proportion, times of day by digits, and a ratio with a quotient."""
        left, right = _terms(gold), _terms(answer)
        if left is None or right is None:
            return False
        if [s.text.lstrip("0") for s in left] == [s.text.lstrip("0") for s in right]:
            return True
        times = any(_CLOCK.match(n.text) for n in (gold, answer))
        return not times and self._proportional(left, right)

    def _proportional(self, left: list[Scalar], right: list[Scalar]) -> bool:
        if len(left) != len(right):
            return False
        first, other = left[0], right[0]
        return all(
            same_scalar(_product(a, other), _product(b, first), self._rules)
            for a, b in zip(left[1:], right[1:], strict=True)
        )


def _half_day(node: Node) -> bool:
    return isinstance(node, Scalar) and node.unit in {"am", "pm"}


def coordinates(node: Node) -> tuple[Node, ...] | None:
    """Return the values of ``y = 3, x = 5`` in the order of the names; None if it names nothing.

    Returns None also for names that are not adjacent in the alphabet, and for repeated names.
    """
    items = node.items if isinstance(node, Bag) else ()
    named = [i for i in items if isinstance(i, Relation) and set(i.signs) == {"="}]
    if not named:
        return None
    values = {r.sides[0].text.strip(): r.sides[-1] for r in named}
    order = "".join(sorted(values))
    known = order in string.ascii_lowercase or order in string.ascii_uppercase
    if not isinstance(node, Bag) or len(order) != len(node.items) or not known:
        return ()
    return tuple(values[name] for name in order)


def _are_sets(gold: Bag | Group, answer: Bag | Group) -> bool:
    """Return whether two collections, at most one of them a bag, can only be equal as real sets."""
    if isinstance(gold, Group) and isinstance(answer, Group):
        return len(gold.items) == 2 and (gold.left, gold.right) != (answer.left, answer.right)
    bag, group = (gold, answer) if isinstance(gold, Bag) else (answer, gold)
    assert isinstance(bag, Bag)
    assert isinstance(group, Group)
    return bag.braces or bag.joint or group.left + group.right not in {"()", "[]"}


def _vector(scalar: Scalar) -> tuple[Node, ...] | None:
    """Return the entries of a column or row matrix, None for anything else."""
    if scalar.tree is None or scalar.tree[0] != "mat":
        return None
    rows = [row[1:] for row in scalar.tree[1:]]
    if len(rows) > 1 and any(len(row) > 1 for row in rows):
        return None
    entries = [entry for row in rows for entry in row]
    return tuple(Scalar(f"entry {i}", entry) for i, entry in enumerate(entries))


def _terms(node: Node) -> list[Scalar] | None:
    """Return the terms of a ratio or a quotient, None for anything else."""
    if isinstance(node, Ratio):
        found = [i for i in node.items if isinstance(i, Scalar) and i.tree is not None]
        return found if len(found) == len(node.items) else None
    if isinstance(node, Scalar) and node.tree is not None and node.tree[0] == "div":
        return [Scalar("top", node.tree[1]), Scalar("bottom", node.tree[2])]
    return None


def _product(a: Scalar, b: Scalar) -> Scalar:
    return Scalar(f"{a.text}*{b.text}", ("mul", a.tree, b.tree))
