"""Sums, products and determinants of matrices, carried out on expression trees."""

from __future__ import annotations

from collections.abc import Callable

from alignkit_rewards.expression import Tree
from alignkit_rewards.tokens import UnreadableError

Rows = tuple[tuple[Tree, ...], ...]

MAX_ENTRIES = 400


def fold(tree: Tree) -> Tree:
    """Return the tree with matrix arithmetic carried out; UnreadableError if shapes clash."""
    if not _has_matrix(tree):
        return tree
    kind = tree[0]
    if kind == "mat":
        if sum(len(row) - 1 for row in tree[1:]) > MAX_ENTRIES:
            raise UnreadableError("matrix too large")
        return tree
    if kind == "fn" and tree[1] in {"det", "abs"} and len(tree) == 3:
        return _determinant(_rows(fold(tree[2])))
    parts = [fold(t) for t in tree[1:] if isinstance(t, tuple)]
    if kind == "neg":
        return _each(parts[0], lambda entry: ("neg", entry))
    if kind == "add" and len(parts) == 2:
        return _add(_rows(parts[0]), _rows(parts[1]))
    if kind in {"mul", "div"}:
        return _multiply(kind, parts[0], parts[1])
    raise UnreadableError(f"matrix in {kind}")


def _has_matrix(tree: Tree) -> bool:
    return tree[0] == "mat" or any(_has_matrix(t) for t in tree[1:] if isinstance(t, tuple))


def _rows(tree: Tree) -> Rows:
    if tree[0] != "mat":
        raise UnreadableError("matrix and number")
    return tuple(row[1:] for row in tree[1:])


def _each(matrix: Tree, change: Callable[[Tree], Tree]) -> Tree:
    return ("mat", *(("row", *(change(entry) for entry in row)) for row in _rows(matrix)))


def _add(a: Rows, b: Rows) -> Tree:
    if len(a) != len(b) or len(a[0]) != len(b[0]):
        raise UnreadableError("shapes differ")
    pairs = zip(a, b, strict=True)
    return (
        "mat",
        *(("row", *(("add", x, y) for x, y in zip(r, s, strict=True))) for r, s in pairs),
    )


def _multiply(kind: str, a: Tree, b: Tree) -> Tree:
    if b[0] != "mat":
        return _each(a, lambda entry: (kind, entry, b))
    if kind == "div":
        raise UnreadableError("division by a matrix")
    if a[0] != "mat":
        return _each(b, lambda entry: ("mul", a, entry))
    left, right = _rows(a), _rows(b)
    if len(left[0]) != len(right):
        raise UnreadableError("shapes differ")
    columns = tuple(zip(*right, strict=True))
    return ("mat", *(("row", *(_dot(row, column) for column in columns)) for row in left))


def _dot(row: tuple[Tree, ...], column: tuple[Tree, ...]) -> Tree:
    terms: list[Tree] = [("mul", x, y) for x, y in zip(row, column, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = ("add", total, term)
    return total


def _determinant(rows: Rows) -> Tree:
    if len(rows) != len(rows[0]) or len(rows) > 4:
        raise UnreadableError("determinant")
    if len(rows) == 1:
        return rows[0][0]
    total: Tree | None = None
    for column, entry in enumerate(rows[0]):
        minor = tuple(row[:column] + row[column + 1 :] for row in rows[1:])
        term: Tree = ("mul", entry, _determinant(minor))
        term = ("neg", term) if column % 2 else term
        total = term if total is None else ("add", total, term)
    assert total is not None
    return total
