"""The run that algorithms and trackers report to, and state that outlives a process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from alignkit.lifecycle.signals import Signals


class Run(Protocol):
    """A run directory, and the channel through which algorithms and trackers report to it."""

    dir: Path
    """Holds ``recipe.toml``, ``manifest.json``, ``metrics.jsonl`` and what the run produces."""
    plan: Mapping[str, Any]
    """The resolved recipe, as in ``recipe.toml``."""
    printer: Callable[[str], None]
    """Where :meth:`say` prints; a tracker that owns the terminal may replace it."""
    total_steps: int | None
    """Number of the last step, for progress displays; set by algorithms that know it."""
    resumed: bool
    """Whether rows of this run may have been logged before, by a process that ended."""
    first_step: int
    """The first step to log; rows of earlier steps exist already and are not logged again."""
    checkpoint: Path | None
    """Folder to resume from, for ``alignkit.engine.training.loop``."""
    profiled: bool
    """Whether a few steps are profiled, by ``alignkit.engine.training.loop``."""
    computed: dict[str, str]
    """How named parts of the run are computed; recorded in ``manifest.json``."""
    signals: Signals
    """Delays signals while something must not be left half done."""

    @property
    def name(self) -> str:
        """Name of the run directory."""
        ...

    def elapsed(self) -> float:
        """Return the seconds the run has taken, including those before it was resumed."""
        ...

    def say(self, text: str) -> None:
        """Print a line for the user."""
        ...

    def note(self, text: str) -> None:
        """Print a line and also keep it in the manifest, under ``notes``."""
        ...

    def attach(self, trackers: Iterable[Tracker]) -> None:
        """Start trackers, which then receive every row; the run closes them when it ends."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row to ``metrics.jsonl`` and pass it to the trackers; call once per step."""
        ...

    def rows(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write samples to ``{name}/step_NNNNNN.jsonl`` and pass them to the trackers.

        ``name`` is ``rollouts``, ``eval`` or ``eval/SET``.
        """
        ...

    def stay(self) -> None:
        """Raise AlignkitError if the directory was deleted or moved during the run.

        ``dir`` is then set to where the run's state can be saved.
        """
        ...

    def logged_bytes(self) -> int:
        """Return the length of ``metrics.jsonl``."""
        ...

    def sync_metrics(self) -> None:
        """Flush ``metrics.jsonl`` to disk, before a checkpoint relies on it."""
        ...


class Tracker(Protocol):
    """Receives what a run logs. The run directory's ``metrics.jsonl`` is written regardless."""

    def start(self, run: Run, /) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Take one row of metrics; ``time`` (seconds since start) is among them."""
        ...

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Take a table of samples; ``name`` is "rollouts" or "eval"."""
        ...

    def close(self, status: Literal["done", "failed"], /) -> None: ...


class Algorithm(Protocol):
    """A whole run: a training procedure or an evaluation."""

    def run(self, run: Run) -> Mapping[str, float]:
        """Do the work, log through ``run``, return the final metrics."""
        ...


@runtime_checkable
class Divides(Protocol):
    """An algorithm, or a rollout backend's parameters, that several ranks may share one run of."""

    @property
    def on_ranks(self) -> bool:
        """Whether they may. A backend's ranks answer a prompt alike, whatever else is asked."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """Any component that changes from step to step, so that a checkpoint must hold its state."""

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs: numbers, strings and tensors, in lists, tuples and dicts."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what :meth:`state_dict` returned."""
        ...
