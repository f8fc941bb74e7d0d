"""A recipe in which every value knows its file and line, and merging one over another.

If a table changes its ``use``, its values are dropped: they belong to the component chosen before.
The tables below it stay, marked as inherited, until it is known whether the new component has slots
for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from alignkit.errors import Origin

Key = tuple[str, ...]
T = TypeVar("T")


@dataclass
class Document:
    """A merged recipe, not yet validated."""

    table: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)
    """Where each table and value is set; items of an array of tables by index, as strings."""
    path: Path = field(default_factory=Path.cwd)
    """The recipe file itself."""
    inherited: dict[Key, Key] = field(default_factory=dict)
    """Values in tables below a table that changed its ``use``, each with that table: the component
    that it now chooses may not accept them."""
    left_out: list[str] = field(default_factory=list)
    """What was left out of the files, and why."""
    plugins: list[Path] = field(default_factory=list)
    """Files that the recipe names as plugins, those of its base files first."""

    def origin(self, key: Key) -> Origin:
        """Return where ``key`` is set, or else its closest enclosing table that is set."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key) or Origin(self.path, 1, "")


def merge(base: Document, top: Document) -> None:
    """Lay ``top`` over ``base``: tables merge key by key.

    If ``use`` changes, the values of that table are dropped, as they belong to the component chosen
    before. The tables below it stay, marked as inherited: only the new component decides whether it
    accepts them. Tables of ``top`` become part of ``base``; later merges may write into them.
    """
    _merge_table(base, top, base.table, top.table, ())
    base.left_out += top.left_out
    base.plugins += [file for file in top.plugins if file not in base.plugins]


def _merge_table(base: Document, top: Document, under: Any, over: dict[str, Any], at: Key) -> None:
    if isinstance(under, dict) and _changes_use(under, over):
        _change_use(base, under, over, at)
    for name, value in over.items():
        key, slot, present = (*at, name), *_slot(under, name)
        below = under[slot] if present else None
        if isinstance(value, dict) and (isinstance(below, dict) or _indexes(below, value)):
            if key in top.origins:
                base.origins[key] = top.origins[key]
            if isinstance(below, list):  # whose items are the recipe's own from now on
                base.inherited.pop(key, None)
            _merge_table(base, top, below, value, key)
        else:
            _replace(base, top, under, slot, value, key)


def _slot(under: Any, name: str) -> tuple[Any, bool]:
    """Return the index of ``name`` in a table or array, and whether there is an item."""
    if isinstance(under, list):
        return int(name), True
    return name, name in under


def _indexes(below: Any, value: dict[str, Any]) -> bool:
    """Whether ``value`` came from an override such as ``-s trackers.0.use=jsonl``."""
    inside = isinstance(below, list)
    return inside and all(k.isdigit() and int(k) < len(below) for k in value)


def _replace(base: Document, top: Document, under: Any, slot: Any, value: Any, key: Key) -> None:
    under[slot] = value
    base.origins = _over(base.origins, top.origins, key)
    base.inherited = _over(base.inherited, top.inherited, key)


def _over(base: dict[Key, T], top: dict[Key, T], key: Key) -> dict[Key, T]:
    """Return ``base`` with what ``top`` has for ``key`` and below it, in place of its own."""
    size = len(key)
    kept = {k: v for k, v in base.items() if k[:size] != key}
    return kept | {k: v for k, v in top.items() if k[:size] == key}


def _changes_use(below: dict[str, Any], value: dict[str, Any]) -> bool:
    return "use" in value and "use" in below and value["use"] != below["use"]


def _change_use(base: Document, under: dict[str, Any], over: Mapping[str, Any], at: Key) -> None:
    """Remove the values of the table ``under`` at ``at``; mark the tables below it as inherited.

    ``over`` is the table that is about to be laid over it, with another ``use``.
    """
    for name, value in list(under.items()):
        key = (*at, name)
        if _is_table(value):
            base.inherited |= dict.fromkeys(_leaves(value, key), at)
        elif name not in over:
            reason = f"a value of {under['use']!r}; {over['use']!r} stands in its place"
            base.left_out.append(f"{'.'.join(key)} ({base.origin(key)}): {reason}")
            base.origins.pop(key, None)
            del under[name]


def _is_table(value: Any) -> bool:
    """Whether a value is a table or an array of tables."""
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, dict) for item in items)


def _leaves(value: Any, at: Key) -> Iterator[Key]:
    """Yield the keys of everything in ``value`` that is not a table, and of empty tables."""
    if not isinstance(value, dict) or not value:
        yield at
        return
    for name, inner in value.items():
        yield from _leaves(inner, (*at, name))


def fitting(
    given: Mapping[str, Any], at: Key, slots: Collection[str], document: Document
) -> dict[str, Any]:
    """Return the table ``given`` at ``at`` without inherited tables that have no slot now.

    What is left out is noted in the document.
    """
    kept = dict(given)
    for name in [n for n in given if n not in slots]:
        key = (*at, name)
        marks = {k for k, changed in document.inherited.items() if changed == at}
        own = _own(given[name], key, marks)
        if own != given[name]:
            reason = f"{given['use']!r} takes no such table"
            document.left_out.append(f"[{'.'.join(key)}] ({document.origin(key)}): {reason}")
            kept[name] = own
    return {name: value for name, value in kept.items() if value is not None}


def _own(value: Any, at: Key, marks: Collection[Key]) -> Any:
    """Return the part of a value that is not inherited; None if all of it is."""
    if at in marks:
        return None
    if not isinstance(value, dict) or not value:
        return value
    own = {name: _own(inner, (*at, name), marks) for name, inner in value.items()}
    return {name: inner for name, inner in own.items() if inner is not None} or None
