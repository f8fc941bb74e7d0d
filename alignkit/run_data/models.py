"""Which models a run saved, and at which step."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alignkit.run_data.runs import RunData

CHECKPOINT = re.compile(r"step_(\d{6,})(?:_part_(\d+))?")


@dataclass(frozen=True)
class Model:
    """A folder of weights that a run saved."""

    which: Literal["last", "best"]
    """The weights at the end of the run, in ``final/``, or those with the best evaluation."""
    step: int
    """Last complete step before they were saved."""
    part: bool = False
    """Whether some updates of the next step are included."""

    def __str__(self) -> str:
        """Return such as ``last, step 24``."""
        return f"{self.which}, step {self.step}{' and part of the next' if self.part else ''}"


def models(run: RunData) -> list[Model]:
    """Return the saved models of a run: the last, then the best ones.

    The last is in ``final/``. A run that ended early has it if a time limit or a budget ended it.
    """
    best = [m for m in _saved(run, "*/model", "best")]
    if not (run.path / "final").is_dir():
        return best
    newest = [] if run.status == "done" else _saved(run, "*", "last")[:1]
    step = run.rows[-1]["step"] if run.rows else 0
    return [*(newest or [Model("last", step)]), *best]


def _saved(run: RunData, pattern: str, which: Literal["last", "best"]) -> list[Model]:
    """Return the checkpoints that match, newest first."""
    names = (CHECKPOINT.fullmatch(p.relative_to(run.path / "checkpoints").parts[0])
             for p in (run.path / "checkpoints").glob(pattern))  # fmt: skip
    found = [(int(n[1]), int(n[2] or 0)) for n in names if n]
    return [Model(which, step, bool(part)) for step, part in sorted(found, reverse=True)]


def stands_for(runs: Iterable[RunData]) -> str:
    """Return the first model of each run with the same settings: ``last, step 24``, or none."""
    first = [found[0] if (found := models(run)) else None for run in runs]
    return "; ".join(dict.fromkeys(str(model or "none") for model in first))
