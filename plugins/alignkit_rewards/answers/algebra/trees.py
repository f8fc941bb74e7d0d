r"""Expression trees, and functions on any of them.

Trees are nested tuples whose first item names the node:

``("num", Fraction, significant)`` (significant digits of a decimal, else 0), ``("var", name)``,
``("const", "pi" | "e" | "i" | "inf")``, ``("add" | "mul", a, b)``, ``("div", a, b)``,
``("neg", a)``, ``("pow", a, b)``, ``("fn", name, a, …)``, ``("pm" | "mp", a, b)``,
``("mat", ("row", a, …), …)``.
"""

from __future__ import annotations

from typing import Any

Tree = tuple[Any, ...]


class NoValueError(ValueError):
    """The tree has no value of the kind asked for: a pole, an overflow, an unknown function."""


def names(tree: Tree) -> frozenset[str]:
    """Return the variables of a tree."""
    if tree[0] == "var":
        return frozenset({tree[1]})
    return frozenset().union(*(names(t) for t in tree[1:] if isinstance(t, tuple)))


def contains(tree: Tree, *marks: str) -> bool:
    """Return whether the tree has a node kind, function or constant with one of these names."""
    return tree[0] in marks or any(
        contains(t, *marks) if isinstance(t, tuple) else t in marks for t in tree[1:]
    )


def choose_signs(tree: Tree, upper: bool) -> Tree:
    r"""Replace every ``\pm`` by + and ``\mp`` by -, or vice versa."""
    if tree[0] in {"pm", "mp"}:
        a, b = (choose_signs(t, upper) for t in tree[1:])
        return ("add", a, b if (tree[0] == "pm") is upper else ("neg", b))
    return tuple(choose_signs(t, upper) if isinstance(t, tuple) else t for t in tree)
