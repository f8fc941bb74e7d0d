"""Rewrite a recipe whose keys have the names of an earlier version."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli

from alignkit import recipe
from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.files import write_whole
from alignkit.plugins import Registry
from alignkit.renaming import Renamed


@dataclass(frozen=True)
class Migration:
    """The files of a recipe before and after."""

    before: Mapping[Path, str]
    after: Mapping[Path, str]

    @property
    def text(self) -> str:
        """What changes, as a diff."""
        if not self.before:
            return "nothing to do: all keys have their present names"
        diffs = [_diff(path, self.before[path], self.after[path]) for path in self.before]
        return "\n".join(diffs)

    def write(self) -> None:
        """Write the files that change, each whole."""
        for path, text in self.after.items():
            write_whole(path, text)


def migrated(path: Path, registry: Registry) -> Migration:
    """Return a recipe, and the files it extends, with the current names of keys.

    Raises RecipeError for a recipe that is wrong in other ways, AlignkitError for a line that
    cannot be rewritten.
    """
    if _is_sweep(path):
        raise AlignkitError(
            f"{shown(path)} is a sweep; migrate rewrites recipes, such as the one it names, and "
            "the old keys in a sweep's own tables still work"
        )
    found: dict[Path, list[Renamed]] = defaultdict(list)
    for note in recipe.load(path, registry).renamed:
        assert note.origin.file is not None  # no overrides are given here
        found[note.origin.file].append(note)
    before = {file: file.read_text(encoding="utf-8") for file in found}
    return Migration(before, {file: _rewritten(before[file], found[file]) for file in found})


def _is_sweep(path: Path) -> bool:
    """Whether a file holds the variants of a sweep; a file that cannot be read is left to others.

    A recipe says ``use`` itself, or in what it extends.
    """
    try:
        table = tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "variants" in table and not table.keys() & {"use", "extends"}


def _rewritten(text: str, notes: Sequence[Renamed]) -> str:
    lines = text.split("\n")
    for note in notes:
        at = note.origin.line - 1
        name = re.compile(rf"(?<![\w-]){re.escape(note.key[-1])}(?![\w-])(?=[^\w=#]*(?:[=#].*)?$)")
        lines[at], count = name.subn(note.now, lines[at], count=1)
        if not count:
            raise AlignkitError(f"{note}\n  this line cannot be rewritten; change it by hand")
    return "\n".join(lines)


def _diff(path: Path, before: str, after: str) -> str:
    name = shown(path)
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, name, lineterm="", n=0
    )
    return "\n".join(lines)
