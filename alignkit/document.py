"""A recipe in which every value knows its file and line, and merging one over another.

If a table changes its ``use``, its values are dropped: they belong to the component chosen before.
The tables below it stay, marked as inherited, until it is known whether the new component has slots
for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from alignkit.errors import Origin, Problem, RecipeError
from alignkit.shipped import exists, path_from

Key = tuple[str, ...]
T = TypeVar("T")
TOO_LONG = "a number in it has more than 4,300 digits"
"""What is said of a number that Python refuses to read."""


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

    def take_plugins(self, folder: Path) -> None:
        """Move the paths under the key ``plugins``, relative to ``folder``, to :attr:`plugins`."""
        given = self.table.pop("plugins", [])
        origin = self.origin(("plugins",))
        for name in given if isinstance(given, list) else [given]:
            file = path_from(name, folder) if isinstance(name, str) else None
            if file is None or not exists(file, Path.is_file):
                found = f"not a file name: {name!r}" if file is None else f"no such file: {name}"
                raise RecipeError([Problem(("plugins",), found, origin=origin)])
            self.plugins.append(file)


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
    if "use" in over and isinstance(under, dict) and over["use"] != under.get("use", over["use"]):
        from alignkit.inheritance import drop_values

        marks, notes = drop_values(under, over, at, base.origin)
        base.inherited |= marks
        base.left_out += notes.values()
        base.origins = {key: where for key, where in base.origins.items() if key not in notes}
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
