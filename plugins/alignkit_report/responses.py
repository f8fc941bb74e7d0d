"""Responses of a run by category, length and text, for the terminal and for a write-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.runs import RunData, read, read_samples
from alignkit.security.text import printable
from alignkit_report.samples import category, latest, sample_of
from alignkit_report.story import answer

Category = Literal["correct", "format_only", "neither"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
"""(format, answer) = (1, 1), (1, 0) and (0, 0)."""
KINDS = {"eval": "held-out", "rollouts": "training"}
"""Folders of responses, and what those are called."""


@dataclass(frozen=True)
class Wanted:
    """Which responses: of a step and kind, and what must hold of each."""

    category: Category | None = None
    step: int | None = None
    """None is the last step whose responses were kept."""
    kind: Literal["eval", "rollouts"] | None = None
    """None is the held-out ones where there are some."""
    longer: int | None = None
    """Least length in tokens."""
    shorter: int | None = None
    """Greatest length in tokens."""
    text: str = ""
    """In question or response, whatever the case of its letters."""

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a response is one of these."""
        length = row.get("response_length")
        if self.longer is not None and (length is None or length < self.longer):
            return False
        if self.shorter is not None and (length is None or length > self.shorter):
            return False
        said = f"{row.get('question', row.get('prompt', ''))}\n{row.get('response', '')}"
        fits = self.text.casefold() in said.casefold()
        return fits and self.category in (None, category(row))


@dataclass(frozen=True)
class Found:
    """Responses of one step, and how many of all there were of each category."""

    kind: str
    step: int
    rows: Sequence[Mapping[str, Any]]
    """Those that were wanted."""
    counts: Mapping[str, int]
    """Of all responses of the step, by category."""


def find(run: RunData, wanted: Wanted) -> Found:
    """Return the responses of a run that are wanted; AlignkitError if it kept none of that step."""
    kind, step, file = _file(run, wanted)
    rows = read_samples(file)
    kinds = [category(row) for row in rows]
    counts: dict[str, int] = {name: kinds.count(name) for name in CATEGORIES}
    return Found(kind, step, [row for row in rows if wanted.takes(row)], counts)


def _file(run: RunData, wanted: Wanted) -> tuple[str, int, Path]:
    kinds = [wanted.kind] if wanted.kind else list(KINDS)
    if wanted.step is None and wanted.kind is None:
        if found := latest(run):
            return found
        raise AlignkitError(f"{shown(run.path)} has no saved responses in eval/ or rollouts/ yet")
    for kind in kinds:
        saved = run.samples(kind)
        step = max(saved, default=None) if wanted.step is None else wanted.step
        if step in saved:
            return kind, step, saved[step]
    raise AlignkitError(_none_of(run, kinds, wanted.step))


def _none_of(run: RunData, kinds: Sequence[str], step: int | None) -> str:
    of = "" if step is None else f" of step {step}"
    kept = [f"{k}/ of steps {', '.join(map(str, s))}" for k in KINDS if (s := run.samples(k))]
    return (
        f"{shown(run.path)} has no saved responses{of} in {' or '.join(f'{k}/' for k in kinds)}; "
        f"there are {' and '.join(kept) or 'none at all'}"
    )


def listing(folder: Path, wanted: Wanted, n: int) -> str:
    """Return the first ``n`` wanted responses of a run as text, below the counts of all."""
    found = find(read(folder), wanted)
    return printable("\n".join(_lines(found, n)))


def _lines(found: Found, n: int) -> Iterator[str]:
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    total = sum(found.counts.values())
    yield f"{total} {KINDS[found.kind]} responses of step {found.step}: {counts}"
    yield f"{len(found.rows)} match; {min(n, len(found.rows))} shown"
    for row in found.rows[:n]:
        yield ""
        yield from answer(sample_of(row), category(row))
