"""Add what the assignment needs to a folder with the recipes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from alignkit.errors import AlignkitError, shown

TARGETS = {
    "tests/adapters.py": ("adapters.py.tmpl",),
    "README.md": ("readme.md", "deliverables.md"),
}
"""Files of a course folder, each made of these parts; a part may be the edition's own."""


def add_course(edition: str, folder: Path) -> Iterator[Path]:
    """Write the adapters and the guide of an edition below a folder; yield each file.

    Raises AlignkitError for a folder without the recipes, and for a file that exists.
    """
    if not (folder / "recipes" / "sweeps").is_dir():
        raise AlignkitError(
            f"{shown(folder)} has no recipes/sweeps: write a new folder, with all that is needed, "
            f"by `alignkit init --cs336 {edition} DIR`"
        )
    paths = {folder / name: parts for name, parts in TARGETS.items()}
    for path in paths:
        if path.exists():
            raise AlignkitError(f"{shown(path)} exists; move it away, or choose another DIR")
    for path, parts in paths.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(_part(edition, part) for part in parts), encoding="utf-8")
        yield path


def _part(edition: str, name: str) -> str:
    own = files("alignkit_cs336") / "course" / f"{edition}_{name}"
    shared = files("alignkit_cs336") / "course" / name
    return (own if own.is_file() else shared).read_text(encoding="utf-8")
