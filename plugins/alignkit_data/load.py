"""Loads whole data sets: reads every row and finds every problem in one pass over the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from alignkit import AlignkitError
from alignkit.data_files.progress import watched
from alignkit.data_files.reader import UNPACKED_GIB
from alignkit.errors import shown
from alignkit.protocols import Example
from alignkit_data.columns import BadRow
from alignkit_data.indexed import indexed, stored
from alignkit_data.rows import SUFFIXES, Fault, Row, files_in, read_rows

SHOWN = 5
"""Rows whose problems are spelt out; the rest are counted."""

Convert = Callable[[Row], Example]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The examples of a data set, and what is wrong with its other rows."""

    examples: Sequence[Example]
    faults: tuple[Fault, ...]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield ``(recipe key, message)``: a few bad rows in full, the others as a count."""
        faults = self.faults
        lacking = {f.lacks for f in faults}
        if not self.examples and len(faults) > 1 and len(lacking) == 1 and lacking != {""}:
            yield faults[0].key, f"{faults[0]} (the same in all {len(faults):,} rows)"
            return
        yield from ((fault.key, str(fault)) for fault in faults[:SHOWN])
        if len(faults) > SHOWN:
            yield "path", f"and {len(faults) - SHOWN:,} more bad rows"

    def checked(self) -> Sequence[Example]:
        """Return the examples; AlignkitError if any row is bad."""
        if self.faults:
            raise AlignkitError("\n".join(message for _, message in self.problems()))
        return self.examples


def load_file(
    path: Path, convert: Convert, limit: int | None, unpacked_gib: float = UNPACKED_GIB
) -> Loaded:
    """Read one file; only the first ``limit`` rows."""
    if not path.is_dir():
        return load_local(path, convert, limit, unpacked_gib)
    files = sorted(p.name for p in path.iterdir() if p.name.endswith(SUFFIXES))
    there = f"name one of its files: {', '.join(files)}" if files else "it holds no file of rows"
    return Loaded((), (Fault(shown(path), f"is a folder; {there}"),))


def load_local(
    path: Path,
    convert: Convert,
    limit: int | None,
    unpacked_gib: float = UNPACKED_GIB,
    split: str = "train",
) -> Loaded:
    """Read a file, or the files of ``split`` in a folder; only the first ``limit`` rows."""
    files = files_in(path, split)
    if not files:
        looked = f"{split}.jsonl or a folder {split} with {', '.join(SUFFIXES)} files"
        return Loaded((), (Fault(shown(path), f"the folder holds no {looked}"),))
    root = path if path.is_dir() else None
    stamps = tuple(stamp(f) for f in files)
    return _load_files(files, stamps, root, convert, limit, unpacked_gib)


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when the file's content changes: its modification time and size."""
    if not path.exists():
        return (0, 0)
    status = path.stat()
    return (status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)  # check, facts and build each ask for the same rows
def _load_files(
    files: tuple[Path, ...],
    stamps: tuple[tuple[int, int], ...],
    root: Path | None,
    convert: Convert,
    limit: int | None,
    unpacked_gib: float,
) -> Loaded:
    found = indexed(files[0], root, convert, limit) if len(files) == 1 else None
    if found is None:
        found = stored(files, root, convert, limit, unpacked_gib)
    if found is not None:
        return Loaded(found, ())
    rows = (row for file in files for row in read_rows(file, root, unpacked_gib=unpacked_gib))
    return load_rows(watched(rows, shown(files[0])), convert, limit, where=shown(files[0]))


def load_rows(
    rows: Iterable[Row | Fault], convert: Convert, limit: int | None, *, where: str
) -> Loaded:
    """Convert rows; a fault is kept for each that cannot be read or converted."""
    examples: dict[str, tuple[Example, str]] = {}
    faults: list[Fault] = []
    for row in islice(rows, limit):
        try:
            _add(row, convert, examples)
        except BadRow as bad:
            faults.append(bad.fault)
    if not examples and not faults:
        faults.append(Fault(where, "holds no rows"))
    return Loaded(tuple(example for example, _ in examples.values()), tuple(faults))


def _add(row: Row | Fault, convert: Convert, examples: dict[str, tuple[Example, str]]) -> None:
    if isinstance(row, Fault):
        raise BadRow(row)
    example = convert(row)
    if example.id in examples:
        first = examples[example.id][1]
        message = f"the id {example.id!r} was used at {first} before; ids must be unique"
        raise BadRow(Fault(row.where, message, "id"))
    examples[example.id] = (example, row.where)
