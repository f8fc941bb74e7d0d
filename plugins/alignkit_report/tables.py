"""Tables of final and best values, for the terminal, the page and spreadsheets."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from alignkit.lifecycle.files import beside
from alignkit.run_data.groups import ACCURACY, Estimate, Group, best, final, first
from alignkit.run_data.models import stands_for
from alignkit.run_data.runs import RunData, duration
from alignkit.text_table import aligned
from alignkit_report.pairs import collapses

_HEADLINES = (ACCURACY, "eval/reward", "train/reward", "eval/accuracy", "train/accuracy")
_FINALS = (
    ("eval/n_correct", "right"),
    ("eval/n_format_only", "format only"),
    ("eval/n_neither", "neither"),
    ("eval/format_reward", "format reward"),
    ("train/reward", "training reward"),
    ("eval/response_length", "length"),
    ("eval/token_entropy", "entropy"),
    ("train/token_entropy", "training entropy"),
)
"""Metrics by heading. Without "training" before it, a heading is of held-out problems."""

_OF_SET = re.compile(r"eval/([^/]+)/answer_reward")
"""Metric of a named evaluation set; with one more part it is that of one value of a column."""

BIAS = "The best of several noisy evaluations is biased upwards; final is not."


@dataclass(frozen=True)
class Line:
    """The table's line for one group."""

    group: Group
    metric: str
    """The metric the next three are about."""
    start: Estimate | None
    final: Estimate | None
    best: Estimate | None
    others: dict[str, Estimate | None]
    """Final values of further metrics, by heading."""
    seconds: float
    """Mean wall-clock seconds of a run."""


def headline(groups: Sequence[Group]) -> str:
    """Return the metric the runs are compared by: held-out accuracy where it was logged."""
    logged = list(dict.fromkeys(m for g in groups for m in g.metrics()))
    accuracies = [m for m in logged if m.endswith(("/answer_reward", "accuracy"))]
    known = [m for m in _HEADLINES if m in logged]
    return next(iter([*known[:1], *accuracies, *logged]), ACCURACY)


def lines(groups: Sequence[Group]) -> list[Line]:
    """Return one line per group."""
    metric = headline(groups)
    finals = (*_FINALS, *sets(groups))
    wanted = [(m, h) for m, h in finals if any(m in g.metrics() for g in groups) and m != metric]
    return [
        Line(
            group=g,
            metric=metric,
            start=first(g, metric),
            final=final(g, metric),
            best=best(g, metric, largest=not metric.endswith("loss")),
            others={heading: final(g, name) for name, heading in wanted},
            seconds=sum(r.seconds for r in g.runs) / len(g.runs),
        )
        for g in groups
    ]


def sets(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return the accuracy of each named evaluation set: metric, and the set's name as heading."""
    found = (_OF_SET.fullmatch(m) for g in groups for m in g.metrics())
    return list(dict.fromkeys((m[0], m[1]) for m in found if m))


def by_set(groups: Sequence[Group]) -> str:
    """Return the final accuracy of each group on each named set, "" where there are not several.

    Groups that were evaluated on none of them, such as those that only train, are left out.
    """
    columns = sets(groups)
    if len(columns) < 2:
        return ""
    rows = [(g.name, [final(g, metric) for metric, _ in columns]) for g in groups]
    cells = [
        [name, *(value.text() if value else "–" for value in values)]
        for name, values in rows
        if any(values)
    ]
    return aligned(["VARIANT", *(name for _, name in columns)], cells)


def text(groups: Sequence[Group]) -> str:
    """Return the table as aligned text; below it that of named evaluation sets, if any."""
    found = lines(groups)
    metric = headline(groups)
    heads = ("VARIANT", "RUNS", "START", f"FINAL {metric}", "BEST", "AT STEP", "TIME", "STATE",
             "MODEL")  # fmt: skip
    table = aligned(heads, [_cells(line) for line in found])
    named = by_set(groups)
    return "\n".join([table, *notes(groups), *(["", named] if named else [])])


def notes(groups: Sequence[Group]) -> list[str]:
    """Explain what ± means here, how unfinished runs ended, and which seeds collapsed."""
    sizes = {e.over for line in lines(groups) if (e := line.final) and e.se is not None}
    found = []
    if "seeds" in sizes:
        found.append("± one standard error over seeds")
        found += _examples_error(groups)
    if "examples" in sizes:
        found.append("± one standard error over the evaluation's examples where there is one seed")
    metric = headline(groups)
    ended = [(g, r) for g in groups for r in g.runs if r.reason or r.status == "stopped"]
    found += [f"{g.name}, seed {r.seed}: {_ended(r, metric)}" for g, r in ended]
    return found + collapses(groups, metric)


def _ended(run: RunData, metric: str) -> str:
    """Describe how a run ended, which model it stands for, and the step of its last value."""
    parts = [run.status, run.reason, f"model: {stands_for([run])}"]
    if measured := run.series(metric):
        parts.append(f"last {metric}: step {measured[-1][0]}")
    return ": ".join(filter(None, parts[:2])) + "".join(f"; {part}" for part in parts[2:])


def _examples_error(groups: Sequence[Group]) -> Iterator[str]:
    """Yield the error that seeds do not show, as all are judged on the same examples."""
    metric = headline(groups)
    logged = [s[-1][1] for g in groups for r in g.runs if (s := r.series(f"{metric}_se"))]
    if logged:
        yield (
            f"the examples {metric} is measured on, the same for all seeds, add about "
            f"± {fmean(logged):.3f} that this does not show"
        )


def _cells(line: Line) -> tuple[str, ...]:
    def shown(found: Estimate | None) -> str:
        return found.text() if found else "–"

    return (
        line.group.name,
        str(len(line.group.runs)),
        shown(line.start),
        shown(line.final),
        shown(line.best),
        f"{line.best.step:g}" if line.best and line.best.step is not None else "–",
        duration(line.seconds),
        line.group.status(),
        stands_for(line.group.runs),
    )


def write_rows(groups: Iterable[Group], path: Path) -> None:
    """Write every row of every run as CSV: variant, seed, run, step, time, metrics."""
    groups = list(groups)
    names = list(dict.fromkeys(m for g in groups for m in g.metrics()))
    with beside(path) as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "seed", "run", "step", "time", *names])
        for g in groups:
            for run in g.runs:
                start = [g.name, run.seed, str(run.path)]
                for row in run.rows:
                    values = (row.get(name) for name in ("step", "time", *names))
                    writer.writerow([*start, *values])


def write_summary(groups: Sequence[Group], path: Path) -> None:
    """Write the table of final and best values as CSV: value, standard error and n of each."""
    found = lines(groups)
    named = [{"start": x.start, "final": x.final, "best": x.best} | x.others for x in found]
    columns = list(named[0]) if named else []
    header = [f"{c}{part}" for c in columns for part in ("", " se", " n")]
    with beside(path) as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "metric", "state", "model", "seconds", "best step", *header])
        for line, estimates in zip(found, named, strict=True):
            cells = [cell for c in columns for cell in _parts(estimates[c])]
            step = line.best.step if line.best else ""
            state = (line.group.status(), stands_for(line.group.runs))
            writer.writerow([line.group.name, line.metric, *state, line.seconds, step, *cells])


def _parts(found: Estimate | None) -> tuple[float | str, float | str, int]:
    if found is None:
        return "", "", 0
    return found.value, "" if found.se is None else found.se, found.n
