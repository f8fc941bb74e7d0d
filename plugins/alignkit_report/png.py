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
from typing import TYPE_CHECKING, Any, Literal

from alignkit.errors import AlignkitError
from alignkit.run_data.groups import Group
from alignkit.security.names import file_name
from alignkit_report.curves import Chart, charts, curve
from alignkit_report.markup import color

if TYPE_CHECKING:
    from collections.abc import Iterator

Axis = Literal["step", "time"]
_DASHES = ("-", "--", ":")


def write(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write each chart against step and against wall-clock; return the files.

    Raises AlignkitError where matplotlib is not installed.
    """
    try:
        mpl, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    except ImportError as error:
        raise AlignkitError(
            f"PNGs need matplotlib: pip install 'alignkit[report]' ({error})"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        return list(_all(groups, folder, figures.Figure))


def _all(groups: Sequence[Group], folder: Path, make: Any) -> Iterator[Path]:
    axes: tuple[Axis, ...] = ("step", "time")
    for chart in charts(groups):
        stem = file_name(chart.metrics[0], room=16)
        for axis in axes:
            figure = make(figsize=(6.4, 4.0), dpi=160, layout="constrained")
            _draw(figure.subplots(), chart, groups, axis)
            path = folder / f"{stem}-by-{axis}.png"
            figure.savefig(path)
            yield path


def _draw(axes: Any, chart: Chart, groups: Sequence[Group], axis: Axis) -> None:
    for i, g in enumerate(groups):
        for metric, label, dash in zip(chart.metrics, chart.labels, _DASHES, strict=False):
            found = curve(g, metric)
            if found is None:
                continue
            x = found.step if axis == "step" else [t / 60 for t in found.time]
            name = ", ".join(filter(None, [g.name, label]))
            mark = "o" if len(x) <= 30 else None
            axes.plot(x, found.mean, dash, color=_rgb(i), label=name, marker=mark, markersize=3)
            axes.fill_between(x, found.low, found.high, color=_rgb(i), alpha=0.16, linewidth=0)
    axes.set_xlabel("step" if axis == "step" else "wall-clock minutes")
    axes.set_ylabel(f"{chart.title} ({chart.unit})" if chart.unit else chart.title)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)


def _rgb(index: int) -> Any:
    """Return the page's colour as matplotlib takes it."""
    found = re.fullmatch(r"hsl\((\d+) (\d+)% (\d+)%\)", color(index))
    if found is None:
        return color(index)
    from colorsys import hls_to_rgb

    hue, saturation, lightness = (int(part) for part in found.groups())
    return hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
