"""Are two answers equal? Compares shapes part by part; see :mod:`alignkit_rewards.structure`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alignkit_rewards.intervals import as_intervals
from alignkit_rewards.relations import same_relation
from alignkit_rewards.scalars import same_scalar, squeeze
from alignkit_rewards.structure import Bag, Group, Node, Ratio, Relation, Scalar, Text, Union
from alignkit_rewards.verdict import Conventions
from alignkit_rewards.words import same_words

MAX_ITEMS = 200


class Comparer:
    """Equality under given conventions; :meth:`same` takes the gold first."""

    def __init__(self, rules: Conventions) -> None:
        self.rules = rules

    def same(self, gold: Node, answer: Node) -> bool:
        """Return whether ``answer`` says what ``gold`` says."""
        if squeeze(gold.text) == squeeze(answer.text) and not _needs_reading(gold, answer):
            return True
        if isinstance(gold, Text) or isinstance(answer, Text):
            return self._text(gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._relation(gold, answer)
        return self._value(gold, answer)

    def _text(self, gold: Node, answer: Node) -> bool:
        return same_words(gold.text, answer.text)

    def _value(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Scalar) and isinstance(answer, Scalar):
            return same_scalar(gold, answer, self.rules)
        if isinstance(gold, Ratio) or isinstance(answer, Ratio):
            return self._ratio(gold, answer)
        if isinstance(gold, Union) or isinstance(answer, Union):
            return self._intervals(gold, answer)
        if isinstance(gold, Scalar) or isinstance(answer, Scalar):
            return self._vector(gold, answer)
        return self._collection(gold, answer)

    # -------------------------------------------------------------- collections

    def _collection(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Group) and isinstance(answer, Group):
            return self._group(gold, answer)
        if isinstance(gold, Bag) and isinstance(answer, Bag):
            return self._bag(gold, answer)
        bag, group = (gold, answer) if isinstance(gold, Bag) else (answer, gold)
        assert isinstance(bag, Bag)
        assert isinstance(group, Group)
        if bag.braces or {group.left, group.right} not in ({"(", ")"}, {"[", "]"}):
            return self._intervals(gold, answer)
        return self._ordered(_items(gold), _items(answer))

    def _group(self, gold: Group, answer: Group) -> bool:
        brackets = (gold.left + gold.right, answer.left + answer.right)
        if brackets[0] != brackets[1] and len(gold.items) == 2:
            return self._intervals(gold, answer)
        return self._ordered(gold.items, answer.items)

    def _ordered(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        return len(gold) == len(answer) and all(map(self.same, gold, answer))

    def _bag(self, gold: Bag, answer: Bag) -> bool:
        left, right = list(gold.items), list(answer.items)
        if max(len(left), len(right)) > MAX_ITEMS:
            return False
        if self.rules.list_order == "kept" and not (gold.braces or answer.braces):
            return self._ordered(left, right)
        if gold.braces and answer.braces:
            left, right = self._distinct(left), self._distinct(right)
        if len(right) > len(left) == len(self._distinct(left)):
            right = self._distinct(right)  # the same solution said twice
        return self._matched(left, right) or self._intervals(gold, answer)

    def _distinct(self, items: list[Node]) -> list[Node]:
        kept: list[Node] = []
        for item in items[:50]:
            if not any(self.same(k, item) for k in kept):
                kept.append(item)
        return kept + items[50:]

    def _matched(self, gold: list[Node], answer: list[Node]) -> bool:
        """Return whether the items can be paired off."""
        if len(gold) != len(answer):
            return False
        left = list(answer)
        for item in gold:
            place = next((i for i, other in enumerate(left) if self.same(item, other)), None)
            if place is None:
                return False
            left.pop(place)
        return True

    def _intervals(self, gold: Node, answer: Node) -> bool:
        """Compare as sets of reals, where both sides are such."""
        left, right = as_intervals(gold), as_intervals(answer)
        if left is None or right is None or len(left) != len(right):
            return False
        return self._matched_intervals(left, right)

    def _matched_intervals(self, left: list[Group], right: list[Group]) -> bool:
        rest = list(right)
        for item in left:
            fit = [
                o
                for o in rest
                if (o.left, o.right) == (item.left, item.right)
                and self._ordered(item.items, o.items)
            ]
            if not fit:
                return False
            rest.remove(fit[0])
        return True

    # -------------------------------------------------------------- mixed shapes

    def _vector(self, gold: Node, answer: Node) -> bool:
        """Compare a column or row matrix with a tuple, a one-item list with its item."""
        scalar, other = (gold, answer) if isinstance(gold, Scalar) else (answer, gold)
        assert isinstance(scalar, Scalar)
        if isinstance(other, Bag) and other.items and not other.braces and other is answer:
            # "1/2 or 0.5" says one thing twice
            return all(self.same(gold, item) for item in other.items)
        if isinstance(other, Bag) and other.items and not other.braces:
            first = other.items[0]
            return all(self.same(first, item) for item in other.items) and self.same(first, scalar)
        tree = scalar.tree
        if tree is None or tree[0] != "mat" or not isinstance(other, Group):
            return False
        rows = tree[1:]
        if len(rows) != 1 and any(len(r) != 2 for r in rows):
            return False
        entries = rows[0][1:] if len(rows) == 1 else tuple(r[1] for r in rows)
        items: tuple[Node, ...] = tuple(Scalar(f"entry {i}", e) for i, e in enumerate(entries))
        return self._ordered(items, other.items)

    def _ratio(self, gold: Node, answer: Node) -> bool:
        """Compare ratios by proportion, times of day digit by digit, a ratio with a quotient."""
        sides = [_parts(gold), _parts(answer)]
        if any(s is None for s in sides):
            return False
        left, right = sides
        assert left is not None
        assert right is not None
        if [s.text.lstrip("0") for s in left] == [s.text.lstrip("0") for s in right]:
            return True
        times = any(re.match(r"\d{1,2}:0\d(?!\d)", n.text) for n in (gold, answer))
        return not times and self._proportional(left, right)

    def _proportional(self, left: list[Scalar], right: list[Scalar]) -> bool:
        if len(left) != len(right):
            return False
        first, other = left[0], right[0]
        return all(
            same_scalar(_product(a, other), _product(b, first), self.rules)
            for a, b in zip(left[1:], right[1:], strict=True)
        )

    # -------------------------------------------------------------- relations

    def _relation(self, gold: Node, answer: Node) -> bool:
        return same_relation(gold, answer, self)


def _items(node: Node) -> Sequence[Node]:
    assert isinstance(node, Bag | Group)
    return node.items


def _needs_reading(gold: Node, answer: Node) -> bool:
    """Return whether equal spelling is not enough: units and percent signs were cut off."""
    return isinstance(gold, Scalar) and isinstance(answer, Scalar)


def _parts(node: Node) -> list[Scalar] | None:
    if isinstance(node, Ratio):
        found = [i for i in node.items if isinstance(i, Scalar) and i.tree is not None]
        return found if len(found) == len(node.items) else None
    if isinstance(node, Scalar) and node.tree is not None and node.tree[0] == "div":
        return [Scalar("top", node.tree[1]), Scalar("bottom", node.tree[2])]
    return None


def _product(a: Scalar, b: Scalar) -> Scalar:
    assert a.tree is not None
    assert b.tree is not None
    return Scalar(f"{a.text}*{b.text}", ("mul", a.tree, b.tree))
