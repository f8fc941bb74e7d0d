"""A training on several ranks begins where rank 0's does: same folder, checkpoint and weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.engine.ranks import here
from alignkit.engine.training.parts import Parts
from alignkit.lifecycle import ranks

if TYPE_CHECKING:
    from alignkit.protocols import Run


@contextmanager
def together(run: Run, parts: Parts) -> Iterator[None]:
    """Make this process one of the run's ranks while the block runs; one process is alone."""
    if ranks.size() == 1:
        yield
        return
    from alignkit.engine.ranks.joining import joined

    model = parts.policy.model
    with joined(run, next(model.parameters()).device):
        _follow(run)
        here().copy([*model.parameters(), *model.buffers()])
        yield


def _follow(run: Run) -> None:
    """Take over from rank 0 where the run is, and where it goes on from."""
    checkpoint = str(run.checkpoint) if run.checkpoint else None
    given: Any = here().first([str(run.dir), checkpoint, run.first_step, run.resumed])
    if ranks.follows():
        folder, found, run.first_step, run.resumed = given
        run.dir, run.checkpoint = Path(folder), Path(found) if found else None
