"""Summary of a run for the terminal: plan, sparklines, best step, right and wrong answers."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any

from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.overrides import typed
from alignkit.run_data.groups import Group, best, final, flatten
from alignkit.run_data.models import models
from alignkit.run_data.runs import RunData, duration, find, is_run, read
from alignkit.security.text import printable
from alignkit.shipped import PREFIX
from alignkit_report import tables
from alignkit_report.samples import Sample, choose, latest

WIDTH = 40
"""Characters of a sparkline."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVES = (
    "eval/answer_reward", "eval/format_reward", "train/reward", "train/loss", "train/grad_norm",
    "train/clip_fraction", "train/token_entropy", "eval/token_entropy", "train/response_length",
    "eval/response_length", "eval/response_length_correct", "eval/response_length_incorrect",
)  # fmt: skip

_HEADLINES = ("answer_reward", "reward", "format_reward")


def of(folder: Path, *, briefly: bool = False) -> str:
    """Return the summary of the run in a directory, or its end; AlignkitError if there is none."""
    require_run(folder)
    return brief(folder) if briefly else story(read(folder))


def require_run(folder: Path) -> None:
    """Raise AlignkitError unless a directory is a run directory; the error names the runs in it."""
    if not is_run(folder):
        found = find([folder])
        names = ", ".join(shown(run.path) for run in found[:3])
        raise AlignkitError(
            f"{shown(folder)} is no run directory but holds {len(found)}: {names}…; show one of "
            f"them, or see all with `alignkit report {in_shell(folder)}`"
        )


def brief(folder: Path) -> str:
    """Return how a run's headline metrics changed, where it is, and what can be done next."""
    run, shown_as = read(folder), shown(folder)
    ended = "done in" if run.status == "done" else f"{run.status} after"
    lines = [f"{ended} {run.seconds:.0f} s"]
    for metric in _headlines(run):
        if values := [value for _, value in run.series(metric)]:
            moved = f"{values[0]:.3f} -> " if len(run.rows) > 1 else ""
            lines.append(f"  {metric}: {moved}{values[-1]:.3f}")
    lines.append(f"run directory: {shown_as}  (metrics.jsonl, eval/, rollouts/)")
    if (folder / "final").is_dir():
        lines.append(f"model: {shown_as}/final  (AutoModelForCausalLM.from_pretrained loads it)")
        lines.append(f"next: {_evaluation(folder / 'final')}")
    return printable("\n".join(lines))


def _headlines(run: RunData) -> list[str]:
    """Return the metrics that a run is judged by: those of ``eval/…``, then those of each set."""
    parts = [name.split("/") for name in run.metrics()]
    sets = dict.fromkeys(p[1] for p in parts if p[0] == "eval" and len(p) == 3)
    return [f"eval/{at}{name}" for at in ("", *(f"{s}/" for s in sets)) for name in _HEADLINES]


def _evaluation(model: Path) -> str:
    """Return the command that evaluates a model, as it can be typed in this directory."""
    path = shown(model)
    if path[0] in "~ " or path.startswith(PREFIX):
        path = str(model.absolute())
    item = f"policy.path={path}"
    if typed([item]).table != {"policy": {"path": path}}:  # it reads as something else in TOML
        item = f"policy.path={json.dumps(path, ensure_ascii=False)}"
    return f"alignkit run {PREFIX}recipes/evaluate.toml -s {quote(item)}"


def story(run: RunData) -> str:
    """Return the run's summary as text."""
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
    yield from (f"  model: {model}" for model in models(run))
    if facts.get("started"):
        yield f"  started {facts['started']}: {' '.join(map(str, facts.get('command') or ()))}"
    notes = facts.get("notes")
    yield from (f"  {note}" for note in (notes if isinstance(notes, list) else ()))
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


def _values(run: RunData, metrics: Sequence[str]) -> dict[str, list[float]]:
    """Return the values of those metrics that have any; each is gone through once."""
    found = ((metric, run.series(metric)) for metric in metrics)
    return {metric: [v for _, v in series] for metric, series in found if series}


def _curves(run: RunData) -> Iterator[str]:
    found = _values(run, _CURVES) or _values(run, run.metrics()[:8])
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
        yield from answer(sample, "RIGHT" if sample.right else "WRONG")


def answer(sample: Sample, label: str) -> Iterator[str]:
    """Yield the lines of one response: a label with its rewards, question, text and gold."""
    yield f"  {label}  {sample.notes}"
    for name, text in (
        ("asked", sample.question),
        ("said", sample.response),
        ("gold", sample.gold),
    ):
        lines = [w for line in text.splitlines() for w in textwrap.wrap(line, 88) or [""]] or ["–"]
        shown_lines = lines if len(lines) <= 12 else [*lines[:6], "…", *lines[-5:]]
        yield from (f"    {name if i == 0 else '':<6} {line}" for i, line in enumerate(shown_lines))
