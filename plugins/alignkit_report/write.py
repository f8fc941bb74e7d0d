"""Write a report and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.groups import Group
from alignkit.run_data.runs import sweep_notes
from alignkit_report import page, pairs, png, rollouts, tables, write_up


def files(
    groups: Sequence[Group],
    target: Path,
    title: str,
    *,
    with_csv: bool = False,
    with_png: bool = False,
    against: Literal["step", "time"] = "step",
    band: Literal["error", "range"] = "error",
    reference: str | None = None,
    with_write_up: bool = False,
    with_rollouts: bool = False,
) -> Iterator[Path]:
    """Write the page to ``target`` and what else is wanted beside it; yield each file.

    PNGs are ``against`` step or wall-clock. ``reference`` names the setting that others are
    compared with, seed by seed. The write-up has its own PNGs, against both.

    Raises AlignkitError for a target that is a directory or cannot be written, for a write-up that
    exists, and where matplotlib is wanted but not installed.
    """
    if target.is_dir():
        raise AlignkitError(f"{target} is a directory; --out names the HTML file")
    written_up = target.with_suffix(".md")
    if with_write_up and written_up.exists():
        raise AlignkitError(
            f"{shown(written_up)} exists and may hold comments; move it away, or name another "
            "file with --out"
        )
    try:
        page.write(groups, target, title, reference)
        yield target
        if with_rollouts:
            rollouts.write(groups, target.with_suffix(".rollouts.html"), title)
            yield target.with_suffix(".rollouts.html")
        if with_csv:
            yield from _spreadsheets(groups, target, reference)
        if with_png:
            yield from png.write(groups, target.with_suffix(".png.d"), against, band)
        if with_write_up:
            yield from write_up.write(groups, written_up, title, band, reference)
    except OSError as error:
        raise AlignkitError(
            f"cannot write in {shown(target.parent)}: {error.strerror}; --out names another file"
        ) from error


def _spreadsheets(groups: Sequence[Group], target: Path, reference: str | None) -> Iterator[Path]:
    """Write all rows, the table and the comparisons seed by seed as CSV."""
    rows, summary = target.with_suffix(".csv"), target.with_suffix(".summary.csv")
    tables.write_rows(groups, rows)
    tables.write_summary(groups, summary)
    yield from (rows, summary)
    if compared := pairs.found(groups, tables.headline(groups), reference):
        pairs.write(compared, target.with_suffix(".pairs.csv"))
        yield target.with_suffix(".pairs.csv")


def title(folders: Sequence[Path]) -> str:
    """Return what the page is called: a sweep's own title, or the names of the directories."""
    if len(folders) == 1 and (own := sweep_notes(folders[0]).get("title")):
        return str(own)
    return ", ".join(folder.resolve().name for folder in folders)
