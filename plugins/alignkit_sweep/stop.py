"""Rules for stopping a run as diverged."""

from __future__ import annotations

from collections import deque
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from alignkit.component import Params
from alignkit.run_data.metrics import Row


class StopTable(Params[Any]):
    """Rules for stopping a run as diverged."""

    nonfinite_steps: Annotated[int, Field(ge=0)] = 3
    """Consecutive steps with a loss or gradient norm that is not finite; 0 = no limit."""

    metric: str = "train/reward"
    """What must not collapse."""

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Collapsed: the mean over the last ``steps`` rows is below this share of the best such mean
    before; 0 = never."""

    steps: Annotated[int, Field(ge=1)] = 10
    """Rows in a mean."""


class Divergence:
    """Reads a run's rows one by one and decides whether it has diverged.

    Its memory does not grow with the run.
    """

    def __init__(self, stop: StopTable) -> None:
        self._stop = stop
        self._lost = 0  # steps in a row without a finite loss or gradient norm
        self._step: Any = None
        self._values: deque[float] = deque(maxlen=stop.steps)
        self._means: deque[float] = deque()  # the last; those before are in _top
        self._top = 0.0

    def add(self, row: Row) -> None:
        """Take in the next row."""
        self._step = row["step"]
        if "train/loss" in row:
            finite = None not in (row["train/loss"], row.get("train/grad_norm", 0.0))
            self._lost = 0 if finite else self._lost + 1
        if isinstance(value := row.get(self._stop.metric), int | float):
            self._values.append(value)
            if len(self._values) == self._stop.steps:
                self._means.append(fmean(self._values))
        if len(self._means) > self._stop.steps:
            self._top = max(self._top, self._means.popleft())

    def reason(self) -> str:
        """Return why the run is diverged, or ``""``."""
        most, top = self._stop.nonfinite_steps, self._top
        if most and self._lost >= most:
            return f"loss or gradient norm not finite for {most} steps, to step {self._step}"
        if top > 0 and self._means[-1] < self._stop.fraction * top:
            metric = self._stop.metric
            return f"{metric} fell from {top:.3g} to {self._means[-1]:.3g} at step {self._step}"
        return ""
