"""Write a report and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.groups import Group
from alignkit.run_data.runs import sweep_notes
from alignkit_report import page, png, tables


def files(
    groups: Sequence[Group],
    target: Path,
    title: str,
    *,
    with_csv: bool = False,
    with_png: bool = False,
    against: Literal["step", "time"] = "step",
) -> Iterator[Path]:
    """Write the page to ``target`` and what else is wanted beside it; yield each file.

    PNGs are ``against`` step or wall-clock.

    Raises AlignkitError for a target that is a directory or cannot be written, and where
    matplotlib is wanted but not installed.
    """
    if target.is_dir():
        raise AlignkitError(f"{target} is a directory; --out names the HTML file")
    try:
        page.write(groups, target, title)
        yield target
        if with_csv:
            rows, summary = target.with_suffix(".csv"), target.with_suffix(".summary.csv")
            tables.write_rows(groups, rows)
            tables.write_summary(groups, summary)
            yield from (rows, summary)
        if with_png:
            yield from png.write(groups, target.with_suffix(".png.d"), against)
    except OSError as error:
        raise AlignkitError(
            f"cannot write in {shown(target.parent)}: {error.strerror}; --out names another file"
        ) from error


def title(folders: Sequence[Path]) -> str:
    """Return what the page is called: a sweep's own title, or the names of the directories."""
    if len(folders) == 1 and (own := sweep_notes(folders[0]).get("title")):
        return str(own)
    return ", ".join(folder.resolve().name for folder in folders)
