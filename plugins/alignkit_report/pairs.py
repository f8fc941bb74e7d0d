"""The table that compares settings seed by seed, for the terminal, the page and spreadsheets."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from alignkit.errors import AlignkitError, did_you_mean
from alignkit.run_data.groups import Group
from alignkit.run_data.paired import MOST, Paired, all_pairs, collapsed, compare, finals
from alignkit.text_table import aligned

HEADS = ("setting", "seeds", "difference", "95 % interval", "p", "seeds needed")
HOW = (
    "The difference is the mean over seeds of the final value less that of the reference at the "
    "same seed; interval and p are of a paired t test, not corrected for the number of settings. "
    "Seeds needed would find a difference of that size and spread four times in five, at p < 0.05. "
    "Equal differences have no spread to test by. Runs that did not end are left out."
)


def reference_of(groups: Sequence[Group], name: str | None) -> Group:
    """Return the setting that others are compared with: the named one, or else the first."""
    if name is None:
        return groups[0]
    for g in groups:
        if g.name == name:
            return g
    names = [g.name for g in groups]
    raise AlignkitError(
        f"there is no setting {name!r} to compare with.{did_you_mean(name, names)} "
        f"There are {', '.join(names)}"
    )


def found(groups: Sequence[Group], metric: str, reference: str | None = None) -> list[Paired]:
    """Return the comparisons, each followed by the one without seeds that collapsed.

    Empty where no two settings share two seeds, unless a ``reference`` is asked for.
    """
    base = reference_of(groups, reference)
    pairs = list(all_pairs(groups, metric, base))
    if reference is None and not any(len(pair.seeds) > 1 for pair, _ in pairs):
        return []
    return [one for pair in pairs for one in pair if one is not None]


def cells(pair: Paired, all_seeds: Sequence[int]) -> tuple[str, ...]:
    """Return the cells of one comparison; ``all_seeds`` tells which were left out."""
    left = sorted({*all_seeds} - {*pair.seeds})
    without = f" without seed {', '.join(map(str, left))}" if left else ""
    bounded = math.isfinite(pair.low)
    return (
        f"{pair.name}{without}",
        str(len(pair.seeds)),
        f"{pair.difference:+.3f}",
        f"{pair.low:+.3f} to {pair.high:+.3f}" if bounded else "–",
        "–" if pair.p is None else (f"{pair.p:.3f}" if pair.p >= 0.001 else "< 0.001"),
        _needed(pair),
    )


def _needed(pair: Paired) -> str:
    if pair.needed is not None:
        return f"{pair.needed:,}"
    return "–" if pair.p is None or not pair.difference else f"> {MOST:,}"


def rows(pairs: Sequence[Paired]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of comparisons; of one setting the first has all its seeds."""
    whole: dict[str, tuple[int, ...]] = {}
    for pair in pairs:
        yield cells(pair, whole.setdefault(pair.name, pair.seeds))


def text(groups: Sequence[Group], metric: str, reference: str | None = None) -> str:
    """Return the table as aligned text, "" where there is nothing to compare."""
    pairs = found(groups, metric, reference)
    lines = []
    if pairs:
        lines = [f"seed by seed: {metric} less that of {pairs[0].reference}"]
        lines += [aligned([head.upper() for head in HEADS], list(rows(pairs))), HOW]
    return "\n".join([*lines, *apart(groups, metric, reference)])


def apart(groups: Sequence[Group], metric: str, reference: str | None = None) -> list[str]:
    """Return why settings that share seeds with the reference are not compared with it."""
    base = reference_of(groups, reference)
    seeds = finals(base, metric).keys()
    return [
        f"{g.name} is not compared with {base.name} seed by seed: its data or its questions a step "
        "differ, so that a seed does not mean the same questions"
        for g in groups
        if g is not base
        and len(seeds & finals(g, metric).keys()) > 1
        and compare(g, base, metric) is None
    ]


def collapses(groups: Sequence[Group], metric: str) -> list[str]:
    """Return a line for every seed that collapsed, except those that a sweep stopped."""
    if metric.endswith("loss"):
        return []
    stopped = {(g.name, run.seed) for g in groups for run in g.runs if run.reason}
    return [
        f"{g.name}, seed {seed}: collapsed: {how}"
        for g in groups
        for seed, how in collapsed(g, metric).items()
        if (g.name, seed) not in stopped
    ]


def write(compared: Sequence[Paired], path: Path) -> None:
    """Write the comparisons as CSV, in full precision."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["setting", "reference", "seeds", "difference", "low", "high", "p", "seeds needed"]
        )
        for pair in compared:
            seeds = " ".join(map(str, pair.seeds))
            values = (pair.difference, pair.low, pair.high, pair.p, pair.needed)
            writer.writerow([pair.name, pair.reference, seeds, *values])
