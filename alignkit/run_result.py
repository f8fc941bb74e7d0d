"""A run directory from Python: its metrics, responses and model."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import plugins
from alignkit import recipe as recipes
from alignkit.document import Document
from alignkit.errors import AlignkitError, shown
from alignkit.plugin_files import with_files
from alignkit.run_data.runs import RunData, is_run, read, read_samples
from alignkit.security.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from alignkit.protocols import Policy

SHOWN = ("eval/answer_reward", "eval/reward", "train/reward", "train/loss")
"""What is drawn of a run unless metrics are named: those of these that it logged."""


def open_run(folder: str | os.PathLike[str]) -> RunResult:
    """Open a run directory: of a run that is finished, failed, or still going on.

    Raises AlignkitError where no run was started.
    """
    if not isinstance(folder, str | os.PathLike):
        raise AlignkitError(f"open_run takes the name of a folder, not {folder!r:.60}")
    path = Path(folder).absolute()
    try:
        found = is_run(path)
    except OSError as error:  # a name too long, a folder of somebody else
        raise AlignkitError(f"{shown(path)} cannot be read: {error.strerror}") from error
    if not found:
        raise AlignkitError(f"{shown(path)} is no run directory: it holds no metrics.jsonl")
    return RunResult(path)


class RunResult:
    """What a run has written so far. Every call reads the directory as it is then."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        """The run directory."""

    @property
    def data(self) -> RunData:
        """Everything small: rows, recipe, manifest, and warnings about what cannot be read."""
        return read(self.dir)

    @property
    def status(self) -> str:
        """``done``, ``running`` (or killed), ``failed``, ``interrupted`` or what a sweep noted."""
        return self.data.status

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe."""
        return dict(self.data.plan)

    @property
    def final(self) -> dict[str, float]:
        """The last row of metrics; {} before the first."""
        rows = self.data.rows
        return dict(rows[-1]) if rows else {}

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics by step; a number that was not finite is None."""
        return [dict(row) for row in self.data.rows]

    def evaluations(self) -> list[dict[str, Any]]:
        """Return the rows in which something was evaluated: the step and the ``eval/…`` values."""
        rows = [
            {key: value for key, value in row.items() if key == "step" or key.startswith("eval/")}
            for row in self.data.rows
        ]
        return [row for row in rows if len(row) > 1]

    def frame(self) -> DataFrame:
        """Return the metrics as a pandas frame, one row for each step; it needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise AlignkitError("frame() needs pandas: pip install pandas") from error
        rows = self.metrics()
        return (pd.DataFrame(rows) if rows else pd.DataFrame({"step": []})).set_index("step")

    def rollouts(self, step: int | None = None, name: str = "rollouts") -> list[dict[str, Any]]:
        """Return the responses saved at a step, the last saved one unless given.

        ``name`` is ``rollouts``, ``eval`` or ``eval/SET``. Raises AlignkitError where none are
        saved, which names the steps that have some.
        """
        files = self.data.samples(name)
        if not files:
            raise AlignkitError(f"{shown(self.dir)} holds no {name}")
        at = max(files) if step is None else step
        if at not in files:
            known = ", ".join(map(str, sorted(files)))
            raise AlignkitError(f"no {name} are saved at step {at}; steps: {known}")
        return read_samples(files[at])

    def policy(self) -> Policy:
        """Return the policy that the run saved in ``final/``, loaded at first use.

        Raises AlignkitError if there is none.
        """
        final = self.dir / "final"
        table = self.recipe.get("policy")
        if not final.is_dir() or not isinstance(table, dict):
            raise AlignkitError(
                f"{shown(self.dir)} has no final/ with a model: the run is {self.status}"
            )
        names = self.recipe.get("plugins", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise AlignkitError(f"{shown(self.dir)}: plugins in recipe.toml is no list of files")
        registry = with_files(plugins.load(), [self.dir / name for name in names])
        document = Document({**table, "path": str(final)}, {}, self.dir / "recipe.toml")
        built: Policy = recipes.resolve(document, registry, "policy").build()
        return built

    def plot(self, *names: str) -> Figure:
        """Return a matplotlib figure of metrics over steps; by default the most important ones.

        Raises AlignkitError without matplotlib, and for a name that was never logged.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise AlignkitError(
                "plot() needs matplotlib: pip install 'alignkit[report]'"
            ) from error
        data = self.data
        logged = data.metrics()
        if wrong := [name for name in names if name not in logged]:
            raise AlignkitError(f"{wrong[0]!r} was not logged; metrics: {', '.join(logged)}")
        drawn = names or tuple(n for n in SHOWN if data.series(n))[:2] or tuple(logged[:1])
        figure = Figure(figsize=(4.5 * max(len(drawn), 1), 3.0), layout="constrained")
        axes = figure.subplots(1, max(len(drawn), 1), squeeze=False)[0]
        for axis, name in zip(axes, drawn, strict=False):
            series = data.series(name)
            axis.plot([s for s, _ in series], [v for _, v in series], marker=".")
            axis.set_title(name, parse_math=False)  # a name with $ is no formula
            axis.set_xlabel("step")
            axis.grid(alpha=0.3)
        return figure

    def __repr__(self) -> str:
        """Return where it is and how it stands."""
        return f"RunResult({shown(self.dir)!r}, {self.status}, {len(self.data.rows)} rows)"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: state, first and last values, and a chart if it can."""
        data = self.data
        title = html.escape(printable(f"{shown(self.dir)}: {data.status}"))
        rows = "".join(_row(name, data.series(name)) for name in data.metrics() if "/" in name)
        head = "<tr><th>metric</th><th>first</th><th>last</th><th>at step</th></tr>"
        return f"<p><b>{title}</b></p>{self._picture()}<table>{head}{rows}</table>"

    def _picture(self) -> str:
        """Return the chart as an image; "" where matplotlib is not there or nothing is logged."""
        try:
            figure = self.plot() if self.data.metrics() else None
        except AlignkitError:
            figure = None
        if figure is None:
            return ""
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"/>'


def _row(name: str, series: Sequence[tuple[int, float]]) -> str:
    if not series:
        return ""
    (_, first), (step, last) = series[0], series[-1]
    cells = (html.escape(printable(name)), f"{first:.4g}", f"{last:.4g}", str(step))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
