"""A page in Markdown with table, plots and examples, for somebody to comment and hand in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from alignkit.run_data.groups import Estimate, Group, differences, final, first
from alignkit.run_data.runs import duration
from alignkit.security.text import printable
from alignkit_report import pairs, png, tables
from alignkit_report.curves import SECTIONS, Chart, charts
from alignkit_report.responses import CATEGORIES, Found, Wanted, find
from alignkit_report.samples import Sample, sample_of

EXAMPLES = 2
"""Responses of each category that stand in the page, per setting."""
COMMENT = "*Comment:*"
"""Where the reader's own words go."""
BANDS = {"error": "± 1.96 standard errors (σ / √n)", "range": "from the smallest to the largest"}
COUNTS = tuple(f"eval/n_{name}" for name in CATEGORIES)


def write(
    groups: Sequence[Group],
    target: Path,
    title: str,
    band: png.Band = "error",
    reference: str | None = None,
) -> Iterator[Path]:
    """Write the page to ``target`` and its plots to the folder of their own; yield each file.

    Plots are against step and against wall-clock. AlignkitError where matplotlib is not installed.
    """
    folder = target.with_suffix(".png.d")
    for axis in png.AXES:
        yield from png.write(groups, folder, axis, band)
    lines = _page(groups, title, folder.name, band, reference)
    target.write_text("\n".join(lines) + "\n", "utf-8")
    yield target


def _page(
    groups: Sequence[Group], title: str, plots: str, band: png.Band, reference: str | None
) -> Iterator[str]:
    yield f"# {text(title)}\n"
    yield from _commands(groups)
    yield "## Results\n"
    yield from _results(groups)
    yield from _categories(groups)
    yield from _pairs(groups, reference)
    yield from _differences(groups)
    yield "## Curves\n"
    yield from _curves(groups, plots)
    yield f"Thick lines are means over seeds, thin ones single seeds, bands {BANDS[band]}.\n"
    yield "## Examples\n"
    for g in groups:
        yield from _examples(g)


def _commands(groups: Sequence[Group]) -> Iterator[str]:
    runs = [run for g in groups for run in g.runs]
    yield f"{len(runs)} runs of {len(groups)} settings, {duration(sum(r.seconds for r in runs))}.\n"
    if any(run.status == "running" for run in runs):
        yield "Some runs have not ended.\n"


def _results(groups: Sequence[Group]) -> Iterator[str]:
    found, metric = tables.lines(groups), tables.headline(groups)
    yield f"Start, final and best: `{metric}`.\n"
    others = list(found[0].others)
    heads = ["setting", "seeds", "start", "final", "best", "at step", "state", "time", *others]
    yield from table(heads, (_cells(line) for line in found))
    yield from (f"\n{text(note)}." for note in (*tables.notes(groups), tables.BIAS.rstrip(".")))
    yield f"\n{COMMENT}\n"


def _cells(line: tables.Line) -> Iterator[str]:
    yield line.group.name
    yield ", ".join(str(run.seed) for run in line.group.runs)
    yield from (_shown(x) for x in (line.start, line.final, line.best))
    yield f"{line.best.step:g}" if line.best and line.best.step is not None else "–"
    yield line.group.status()
    yield duration(line.seconds)
    yield from (_shown(x) for x in line.others.values())


def _shown(found: Estimate | None) -> str:
    return "–" if found is None else found.text(1 if abs(found.value) >= 2 else 3)


def _categories(groups: Sequence[Group]) -> Iterator[str]:
    """Yield the counts of the categories of format and answer, before training and after."""
    counted = [g for g in groups if set(COUNTS) <= {*g.metrics()}]
    if not counted:
        return
    yield "### Categories of held-out responses\n"
    yield "Counts: right; right in format only; neither. The mean over seeds.\n"
    heads = [
        "setting",
        *(f"{name} {when}" for when in ("at first", "at last") for name in CATEGORIES),
    ]
    rows = (
        [g.name, *(_count(pick(g, metric)) for pick in (first, final) for metric in COUNTS)]
        for g in counted
    )
    yield from table(heads, rows)
    yield f"\n{COMMENT}\n"


def _count(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.value:.4g}"


def _pairs(groups: Sequence[Group], reference: str | None) -> Iterator[str]:
    metric = tables.headline(groups)
    compared = pairs.found(groups, metric, reference)
    if not compared:
        return
    yield "### Seed by seed\n"
    yield f"`{metric}` less that of {text(compared[0].reference)}.\n"
    yield from table(pairs.HEADS, pairs.rows(compared))
    yield from (f"\n{text(note)}" for note in (pairs.HOW, *pairs.apart(groups, metric, reference)))
    yield f"\n{COMMENT}\n"


def _differences(groups: Sequence[Group]) -> Iterator[str]:
    if found := differences(groups):
        yield "### What differs between the plans\n"
        by_setting = zip(*found.values(), strict=True)
        rows = ([g.name, *values] for g, values in zip(groups, by_setting, strict=True))
        yield from table(["setting", *found], rows)
        yield ""


def _curves(groups: Sequence[Group], plots: str) -> Iterator[str]:
    drawn = [chart for chart in charts(groups) if chart.section != SECTIONS[-1]]
    if len(groups) > png.IN_A_CHART:
        yield f"![The colours of the settings]({quote(plots)}/legend.png)\n"
    for chart in drawn:
        yield f"### {text(chart.title)}\n"
        yield from (_image(chart, plots, axis) for axis in png.AXES)
        yield f"\n{COMMENT}\n"


def _image(chart: Chart, plots: str, axis: png.Axis) -> str:
    along = "step" if axis == "step" else "wall-clock"
    return f"![{text(chart.title)} by {along}]({quote(f'{plots}/{png.file_of(chart, axis)}')})"


def _examples(g: Group) -> Iterator[str]:
    """Yield some responses of each category, of the first run of a setting that kept any."""
    run = next((r for r in g.runs if r.samples("eval") or r.samples("rollouts")), None)
    if run is None:
        return
    for category in CATEGORIES:
        found = find(run, Wanted(category=category))
        yield f"### {text(g.name)}: {category}\n"
        yield f"{_of_how_many(found)}, seed {run.seed}.\n"
        for row in found.rows[:EXAMPLES]:
            yield from _example(sample_of(row))
    yield f"{COMMENT}\n"


def _of_how_many(found: Found) -> str:
    total = sum(found.counts.values())
    kind = "held-out" if found.kind == "eval" else "training"
    return f"{len(found.rows)} of {total} {kind} responses of step {found.step}"


def _example(sample: Sample) -> Iterator[str]:
    yield f"{text(sample.notes)}; gold {code(sample.gold)}\n"
    yield fenced(f"{sample.question}\n\n--- response ---\n{sample.response}")
    yield ""


# ---------------------------------------------------------------- Markdown


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a table; what stands in a cell is text, whatever it looks like."""
    names = [text(head) for head in heads]
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    yield from (f"| {' | '.join(text(cell) for cell in row)} |" for row in rows)


def text(value: str) -> str:
    r"""Return one line that Markdown shows as it is.

    >>> print(text("a|b <i>"))
    a\|b \<i>
    """
    line = " ".join(printable(value).split())
    return re.sub(r"([\\`*_{}\[\]<|#])", r"\\\1", line)


def code(value: str) -> str:
    """Return inline code, whatever back-ticks are in it.

    >>> code("a`b")
    '`` a`b ``'
    """
    line = " ".join(printable(value).split())
    if "`" not in line:
        return f"`{line}`" if line else ""
    ticks = _longer_than(line, 1)
    return f"{ticks} {line} {ticks}"


def fenced(value: str) -> str:
    """Return a block of code that nothing in it can end."""
    fence = _longer_than(value, 2)
    return f"{fence}text\n{printable(value)}\n{fence}"


def _longer_than(value: str, least: int) -> str:
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    return "`" * (max(longest, least) + 1)
