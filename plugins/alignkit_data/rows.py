"""Which files of a folder hold the rows of a split."""

from __future__ import annotations

from pathlib import Path

from alignkit.data_files.reader import read_rows
from alignkit.data_files.records import Fault, Row

__all__ = ["JSON", "SUFFIXES", "Fault", "Row", "files_in", "read_rows"]

JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SUFFIXES = (*JSON, ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
"""Names of files of rows end so; what is in them is told by their content."""


def files_in(path: Path, split: str, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Path, ...]:
    """Return the data files at ``path``: itself, or those of ``split`` if it is a folder.

    A folder may hold ``SPLIT.jsonl`` (or another of ``suffixes``), or a folder ``SPLIT`` with
    files at any depth.
    """
    if not path.is_dir():
        return (path,)
    for suffix in suffixes:
        if (path / f"{split}{suffix}").is_file():
            return (path / f"{split}{suffix}",)
    return tuple(sorted(p for p in (path / split).rglob("*") if p.name.endswith(suffixes)))
