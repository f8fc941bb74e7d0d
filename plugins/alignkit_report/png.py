"""The page's charts as PNG files for a write-up; needs matplotlib.

Drawn a second time here, as no library of the page's draws files better. Megabytes besides numpy,
and seconds for 30 files on 2 busy cores: matplotlib 101 and 17; Vega-Lite by vl-convert 84 and 16;
plotly by kaleido 79 and 21, with a browser of 350 MB; Observable Plot needs Node and a DOM, or a
browser. Only Vega-Lite could draw page and files from one description without a browser, and it is
what makes the page slowest; see :mod:`.page`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.groups import Group
from alignkit.security.names import file_name
from alignkit_report.curves import Chart, Curve, Single, charts, curve
from alignkit_report.markup import color

if TYPE_CHECKING:
    from collections.abc import Iterator

Axis = Literal["step", "time"]
AXES: tuple[Axis, ...] = get_args(Axis)
Band = Literal["error", "range"]
"""What is shaded: ± 1.96 standard errors, or from the smallest seed to the largest."""
_DASHES = ("-", "--", ":")
IN_A_CHART = 40
"""Entries of a legend that stand below each chart."""
BANDED = 8
"""Settings up to which bands and single seeds are drawn; those of more would hide each other."""
WIDTH, HEIGHT = 6.4, 4.0
"""Inches of a chart without its legend."""


def write(
    groups: Sequence[Group], folder: Path, axis: Axis = "step", band: Band = "error"
) -> list[Path]:
    """Write each chart, once, against step or wall-clock; return the files.

    More than ``BANDED`` settings have no bands; more than ``IN_A_CHART`` are named in a file of
    their own, ``legend.png``. Raises AlignkitError where matplotlib is not installed.
    """
    try:
        mpl, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    except ImportError as error:
        raise AlignkitError(
            f"PNGs need matplotlib: pip install 'alignkit[report]' ({error})"
        ) from error
    if folder.is_symlink():
        raise AlignkitError(
            f"{shown(folder)} is a symbolic link; remove it, or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        return list(_all(groups, folder, figures.Figure, axis, band))


def _all(
    groups: Sequence[Group], folder: Path, make: Any, axis: Axis, band: Band
) -> Iterator[Path]:
    apart = len(groups) > IN_A_CHART
    for chart in charts(groups):
        figure = make(figsize=(WIDTH, HEIGHT), dpi=160, layout="constrained")
        axes = figure.subplots()
        _draw(axes, chart, groups, axis, band)
        _legend(figure, *_entries(axes, chart, [] if apart else groups))
        path = folder / file_of(chart, axis)
        path.unlink(missing_ok=True)  # a link would be followed
        figure.savefig(path)
        yield path
    if apart:
        figure = make(figsize=(WIDTH, 0.2), dpi=160, layout="constrained")
        blank = figure.subplots()
        blank.axis("off")
        _legend(figure, *_entries(blank, Chart("", ("",)), groups))
        (folder / "legend.png").unlink(missing_ok=True)
        figure.savefig(folder / "legend.png")
        yield folder / "legend.png"


def file_of(chart: Chart, axis: Axis) -> str:
    """Return the name of a chart's file."""
    return f"{file_name(chart.metrics[0], room=16)}-by-{axis}.png"


def _entries(axes: Any, chart: Chart, groups: Sequence[Group]) -> tuple[list[Any], list[str]]:
    """Return the lines and names of a legend: settings by colour, a chart's metrics by dash."""
    found = [(_rgb(i), "-", g.name) for i, g in enumerate(groups)]
    if len(chart.labels) > 1:
        metrics = zip(_DASHES, chart.labels, strict=False)
        found += [("0.35", dash, label) for dash, label in metrics]
    lines = [axes.plot([], [], dash, color=paint)[0] for paint, dash, _ in found]
    return lines, [name for _, _, name in found]


def _legend(figure: Any, lines: Sequence[Any], names: Sequence[str]) -> None:
    """Put the legend below the axes, and make the figure taller by it."""
    if not names:
        return
    columns = max(1, min(len(names), int(92 / (max(map(len, names)) + 6))))
    rows = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.18 * rows + 0.1)
    how = {"loc": "outside lower left", "ncols": columns, "fontsize": 8, "frameon": False}
    figure.legend(lines, names, **how)


def _draw(axes: Any, chart: Chart, groups: Sequence[Group], axis: Axis, band: Band) -> None:
    for i, g in enumerate(groups):
        for metric, dash in zip(chart.metrics, _DASHES, strict=False):
            found = curve(g, metric)
            if found is None:
                continue
            x, paint = _along(found, axis), {"color": _rgb(i)}
            mark = "o" if len(x) <= 30 else None
            axes.plot(x, found.mean, dash, **paint, marker=mark, markersize=3)
            if len(groups) > BANDED:
                continue
            for seed in found.seeds:
                axes.plot(_along(seed, axis), seed.value, dash, **paint, alpha=0.4, linewidth=0.6)
            wide = (found.least, found.most) if band == "range" else (found.low, found.high)
            axes.fill_between(x, *wide, **paint, alpha=0.16, linewidth=0)
    axes.set_xlabel("step" if axis == "step" else "wall-clock minutes")
    axes.set_ylabel(f"{chart.title} ({chart.unit})" if chart.unit else chart.title)
    axes.grid(alpha=0.25)


def _along(line: Curve | Single, axis: Axis) -> Sequence[float]:
    return line.step if axis == "step" else [t / 60 for t in line.time]


def _rgb(index: int) -> Any:
    """Return the page's colour as matplotlib takes it."""
    found = re.fullmatch(r"hsl\((\d+) (\d+)% (\d+)%\)", color(index))
    if found is None:
        return color(index)
    from colorsys import hls_to_rgb

    hue, saturation, lightness = (int(part) for part in found.groups())
    return hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
