"""Which models a run left, and of which step they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alignkit.run_data.runs import RunData

CHECKPOINT = re.compile(r"step_(\d{6,})(?:_part_(\d+))?")


@dataclass(frozen=True)
class Model:
    """A folder of weights that a run left."""

    which: Literal["last", "best"]
    """The weights that the run ended with, in ``final/``; or those of its best evaluation."""
    step: int
    """Last step that they have made whole."""
    part: bool = False
    """Whether they have learned from some of the step after it as well."""

    def __str__(self) -> str:
        """Return such as ``last, step 24``."""
        return f"{self.which}, step {self.step}{' and part of the next' if self.part else ''}"


def models(run: RunData) -> list[Model]:
    """Return the models of a run, first the one that it stands for: the last, then the best.

    The last is in ``final/``; a run that ended before its end has one if time or a budget ended it.
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
    """Return which model the runs of one setting stand for: ``last, step 24``, or none."""
    first = [found[0] if (found := models(run)) else None for run in runs]
    return "; ".join(dict.fromkeys(str(model or "none") for model in first))
