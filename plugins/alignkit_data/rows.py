"""Which files of a folder hold the rows of a split."""

from __future__ import annotations

import json
from pathlib import Path

from alignkit import AlignkitError
from alignkit.data_files.reader import read_rows
from alignkit.data_files.records import Fault, Row
from alignkit.errors import shown

__all__ = ["JSON", "SUFFIXES", "Fault", "Row", "files_in", "read_rows"]

JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SUFFIXES = (*JSON, ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
"""Names of files of rows end so; what is in them is told by their content."""


SAVED = "state.json"
"""Lists the files of a split that `datasets` saved."""


def files_in(path: Path, split: str, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Path, ...]:
    """Return the data files at ``path``: itself, or those of ``split`` if it is a folder.

    A folder may hold ``SPLIT.jsonl`` (or another of ``suffixes``), or a folder ``SPLIT`` with
    files at any depth; or it is what ``save_to_disk`` of `datasets` wrote, of one split or several.
    """
    if not path.is_dir():
        return (path,)
    for folder in (path, path / split):
        if (folder / SAVED).is_file():
            return _saved(folder)
    for suffix in suffixes:
        if (path / f"{split}{suffix}").is_file():
            return (path / f"{split}{suffix}",)
    return tuple(sorted(p for p in (path / split).rglob("*") if p.name.endswith(suffixes)))


def _saved(folder: Path) -> tuple[Path, ...]:
    """Return the files of a saved split, in the order of its rows."""
    try:
        listed = json.loads((folder / SAVED).read_text(encoding="utf-8"))["_data_files"]
        return tuple(folder / Path(file["filename"]).name for file in listed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlignkitError(
            f"{shown(folder / SAVED)}: not what `datasets` saves beside its files: {error!r}"
        ) from error
