"""When a run is given up as diverged."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from alignkit.component import Params
from alignkit.run_data.runs import Row


class StopTable(Params[Any]):
    """When a run is given up as diverged."""

    nonfinite_steps: Annotated[int, Field(ge=0)] = 3
    """Steps in a row with a loss or gradient norm that is not finite; 0 = any number."""

    metric: str = "train/reward"
    """What must not collapse."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Collapsed: the mean over the last ``steps`` rows is below this share of the best such mean
    before; 0 = never."""

    steps: Annotated[int, Field(ge=1)] = 10
    """Rows in a mean."""


def diverged(rows: Sequence[Row], stop: StopTable) -> str:
    """Return why a run with these rows is diverged, or ``""``."""
    trained = [row for row in rows if "train/loss" in row]
    last = trained[-stop.nonfinite_steps :] if stop.nonfinite_steps else []
    lost = [row for row in last if None in (row["train/loss"], row.get("train/grad_norm", 0.0))]
    if last and len(lost) == stop.nonfinite_steps:
        return f"loss or gradient norm not finite for {len(lost)} steps, to step {rows[-1]['step']}"
    values = [v for row in rows if isinstance(v := row.get(stop.metric), int | float)]
    means = [fmean(values[i : i + stop.steps]) for i in range(len(values) - stop.steps + 1)]
    top = max(means[: -stop.steps], default=0.0)
    if top > 0 and means[-1] < stop.fraction * top:
        return f"{stop.metric} fell from {top:.3g} to {means[-1]:.3g} at step {rows[-1]['step']}"
    return ""
