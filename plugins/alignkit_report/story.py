"""A run's story for the terminal: plan, sparklines, best step, right and wrong answers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.groups import Group, best, final, flatten
from alignkit.run_data.runs import RunData, duration, find, is_run, read
from alignkit.security.text import printable
from alignkit_report import tables
from alignkit_report.samples import Sample, choose, latest

WIDTH = 40
"""Characters of a sparkline."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVES = (
    "eval/answer_reward", "eval/format_reward", "train/reward", "train/loss", "train/grad_norm",
    "train/clip_fraction", "train/token_entropy", "train/response_length", "eval/response_length",
    "eval/response_length_correct", "eval/response_length_incorrect",
)  # fmt: skip


def of(folder: Path) -> str:
    """Return the story of the run in a directory; AlignkitError if there is none."""
    if not is_run(folder):
        found = find([folder])
        names = ", ".join(shown(run.path) for run in found[:3])
        raise AlignkitError(
            f"{shown(folder)} is no run directory but holds {len(found)}: {names}…; show one of "
            f"them, or see all with `alignkit report {shown(folder)}`"
        )
    return story(read(folder))


def story(run: RunData) -> str:
    """Return the run's story as text."""
    parts = (_head(run), _plan(run), _curves(run), _best(run), _answers(run))
    text = "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))
    return printable(text)  # names of metrics and values of plans come from outside, too


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Return values as a line of blocks; more values than ``width`` are averaged in bins.

    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7])
    '▁▂▃▄▅▆▇█'
    >>> sparkline([2.0, 2.0])
    '▄▄'
    """
    binned = _bins(values, width)
    low, high = min(binned), max(binned)
    if low == high:
        return _BLOCKS[3] * len(binned)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((v - low) / (high - low) * top)] for v in binned)


def _bins(values: Sequence[float], width: int) -> Sequence[float]:
    if len(values) <= width:
        return values
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _head(run: RunData) -> Iterator[str]:
    facts = run.manifest
    yield f"{shown(run.path)}: {run.status}{f', {run.reason}' if run.reason else ''}"
    step = run.rows[-1]["step"] if run.rows else "none"
    yield f"  {duration(run.seconds)}, last step {step}, seed {run.seed}"
    if facts.get("started"):
        yield f"  started {facts['started']}: {' '.join(map(str, facts.get('command') or ()))}"
    yield from (f"  warning: {w}" for w in run.warnings)


def _plan(run: RunData) -> Iterator[str]:
    """Yield one line per table of the plan."""
    if not run.plan:
        return
    yield "plan"
    yield from _table("", run.plan)


def _table(name: str, table: dict[str, Any] | Any) -> Iterator[str]:
    values = {k: v for k, v in table.items() if not _nested(v)}
    use = values.pop("use", "")
    rest = " ".join(f"{k}={v}" for k, v in flatten(values).items())
    text = f"{name or 'algorithm':<12} {use}  {rest}"
    yield from textwrap.wrap(text, 98, initial_indent="  ", subsequent_indent=" " * 15)
    for key, value in table.items():
        below = enumerate(value) if isinstance(value, list) else [("", value)]
        if _nested(value):
            for index, inner in below:
                yield from _table(".".join(filter(None, [name, key, str(index)])), inner)


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def _curves(run: RunData) -> Iterator[str]:
    logged = [m for m in _CURVES if run.series(m)] or run.metrics()[:8]
    found = {m: [v for _, v in run.series(m)] for m in logged if run.series(m)}
    if not found:
        yield "no metrics yet"
        return
    width = max(len(m) for m in found)
    size = max(len(_bins(v, WIDTH)) for v in found.values())
    yield f"{'curves':<{width + size + 2}}   first -> last  (lowest to highest)"
    for metric, values in found.items():
        line = f"{sparkline(values):<{size}}"
        ends = f"{values[0]:.4g} -> {values[-1]:.4g}  ({min(values):.4g} to {max(values):.4g})"
        yield f"  {metric:<{width}} {line}  {ends}"


def _best(run: RunData) -> Iterator[str]:
    alone = [Group(run.variant, [run])]
    metric = tables.headline(alone)
    largest = not metric.endswith("loss")
    top, last = best(alone[0], metric, largest), final(alone[0], metric)
    if top and last:
        yield f"best {metric}: {top.text()} at step {top.step:g}; last: {last.text()}"


def _answers(run: RunData) -> Iterator[str]:
    found = latest(run)
    if found is None:
        return
    kind, step, file = found
    yield f"{'held-out' if kind == 'eval' else 'training'} responses of step {step}"
    for sample in choose(file, 3, 3):
        yield from _answer(sample)


def _answer(sample: Sample) -> Iterator[str]:
    yield f"  {'RIGHT' if sample.right else 'WRONG'}  {sample.notes}"
    for label, text in (
        ("asked", sample.question),
        ("said", sample.response),
        ("gold", sample.gold),
    ):
        lines = [w for line in text.splitlines() for w in textwrap.wrap(line, 88) or [""]] or ["–"]
        shown_lines = lines if len(lines) <= 12 else [*lines[:6], "…", *lines[-5:]]
        yield from (
            f"    {label if i == 0 else '':<6} {line}" for i, line in enumerate(shown_lines)
        )
