"""Print the results of sweeps as the Markdown tables of recipes/README.md.

``python recipes/results.py runs/lr runs/baselines`` after ``alignkit sweep recipes/sweeps/lr.toml``
and so on: one table per directory, from nothing but what the runs logged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from alignkit.run_data.groups import Estimate, Group, final, load
from alignkit_report.tables import lines, notes

COLUMNS = {
    "format": "eval/format_reward",
    "length": "eval/response_length",
    "entropy": "eval/token_entropy",
    "clipped": "train/clip_fraction",
}
"""Further final values by heading; one that no run logged is left out."""


def table(groups: Sequence[Group]) -> Iterator[str]:
    """Yield a table of the settings: accuracy before and after with standard error, and more."""
    more = {h: m for h, m in COLUMNS.items() if any(m in g.metrics() for g in groups)}
    heads = ["setting", "seeds", "steps", "accuracy before", "after", *more, "state"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for line in lines(groups):
        g = line.group
        seeds = ", ".join(str(r.seed) for r in g.runs)
        steps = "/".join(dict.fromkeys(str(r.rows[-1]["step"]) for r in g.runs if r.rows))
        values = [shown(final(g, metric)) for metric in more.values()]
        cells = [f"`{g.name}`", seeds, steps, shown(line.start), shown(line.final), *values]
        yield f"| {' | '.join([*cells, g.status()])} |"
    stopped = [note for note in notes(groups) if ", seed " in note]
    yield from ["", *stopped] if stopped else []


def shown(found: Estimate | None) -> str:
    """Return a value with its standard error, or a dash."""
    return "–" if found is None else found.text(1 if abs(found.value) >= 2 else 3)


def main(folders: Sequence[str]) -> None:
    """Print a table for each directory."""
    for folder in folders:
        print(f"### `{Path(folder).name}`\n")
        print("\n".join(table(load([Path(folder)]))), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
