"""The shapes an answer can have; each keeps the text it was parsed from."""

from __future__ import annotations

from dataclasses import dataclass

from alignkit_rewards.answers.algebra.trees import Tree


@dataclass(frozen=True, slots=True)
class Scalar:
    """One expression, with its unit, sign of percentage and the like."""

    text: str
    tree: Tree | None
    """None if this package cannot parse it."""
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """A tuple, vector or interval: ordered, in brackets."""

    text: str
    items: tuple[Node, ...]
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Bag:
    """A list or, in braces, a set: ``1, 2``, ``x = 1 or x = 2``, ``{1, 2}``."""

    text: str
    items: tuple[Node, ...]
    braces: bool = False
    joint: bool = False
    """Inequalities joined by "and", which all hold."""


@dataclass(frozen=True, slots=True)
class Union:
    """Sets joined by a union sign."""

    text: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """``3:4:5``, or a time of day."""

    text: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``x = 2``, ``1 < x \\le 2``, ``x \\in A``: with one sign fewer than sides."""

    text: str
    sides: tuple[Node, ...]
    signs: tuple[str, ...]


Node = Scalar | Text | Group | Bag | Union | Ratio | Relation


def unread(node: Node) -> bool:
    """Return whether some part of an answer could not be read as mathematics."""
    if isinstance(node, Scalar):
        return node.tree is None
    if isinstance(node, Bag | Group | Union):
        return any(unread(item) for item in node.items)
    return isinstance(node, Relation) and all(unread(side) for side in node.sides)
