"""Write a folder to do the assignment in."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from alignkit.shipped import start_folder

TARGETS = {
    "tests/adapters.py": ("adapters.py.tmpl",),
    "README.md": ("readme.md", "deliverables.md"),
}
"""Files of a course folder, each made of these parts; a part may be the edition's own."""


def course_folder(edition: str, folder: Path) -> list[str]:
    """Write recipes, data, adapters and README into a new or empty folder; return what is where.

    Raises AlignkitError for a folder with something in it.
    """
    start_folder(folder)
    for target, parts in TARGETS.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_part(edition, part) for part in parts), encoding="utf-8")
    return [*TARGETS, "recipes/", "recipes/sweeps/", "data/"]


def _part(edition: str, name: str) -> str:
    own = files("alignkit_cs336") / "course" / f"{edition}_{name}"
    shared = files("alignkit_cs336") / "course" / name
    return (own if own.is_file() else shared).read_text(encoding="utf-8")
