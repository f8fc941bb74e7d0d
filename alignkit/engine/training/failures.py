"""What is reported when an error ends a run: the error, then where it can be resumed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from alignkit.engine.asking import Source, described, source_of
from alignkit.engine.evaluation.eval_table import EvalSet
from alignkit.engine.training.parts import Parts
from alignkit.engine.training.saver import Saver
from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.lifecycle.files import UNWRITABLE
from alignkit.lifecycle.ranks import follows
from alignkit.lifecycle.signals import Interrupted
from alignkit.security.secrets import redact_text

if TYPE_CHECKING:
    from alignkit.protocols import Run

TABLES = {
    "reward": ("reward",), "environment": ("environment",),
    "dataset": ("data",), "prompt template": ("prompt",),
    "rollout backend": ("rollout",), "advantage": ("advantage",), "loss": ("loss",),
    "normalizer": ("normalizer",), "optimizer": ("optimizer",),
}  # fmt: skip
"""Default key in a recipe of each kind of component."""


@contextmanager
def explained(run: Run, parts: Parts, saver: Saver) -> Iterator[None]:
    """Re-raise errors of the block as an AlignkitError that tells what failed and what is saved.

    The traceback of a component's error is saved in ``error.txt``.
    """
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        if follows() and isinstance(error, AlignkitError):
            raise
        if follows():
            raise _on_this_rank(error, parts, run) from error
        source = source_of(error)
        if source is None and isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise  # of the run's own files: the kernel reports full disks
        lines = [str(error) if isinstance(error, AlignkitError) else ""]
        if not lines[0]:
            name = f"{name_of(source, parts, run.plan)} raised " if source else ""
            lines = [name + described(error), _kept_traceback(run)]
        lines.append(
            f"{saver.outcome}\n"
            f"go on with: alignkit resume {in_shell(run.dir)} "
            "(--allow-changes after a change of code or data)"
        )
        raise AlignkitError("\n".join(filter(None, lines))) from error


def _on_this_rank(error: BaseException, parts: Parts, run: Run) -> AlignkitError:
    """Return what a rank that follows says: it writes nothing, so the traceback is in it."""
    source = source_of(error)
    name = f"{name_of(source, parts, run.plan)} raised " if source else ""
    return AlignkitError(f"{name}{described(error)}\n{redact_text(traceback.format_exc())}")


def _sets(parts: Parts) -> Iterator[tuple[tuple[str, ...], EvalSet]]:
    """Yield each evaluation set with the keys of its table, also of a run that only evaluates."""
    root = ("eval",) if parts.optimizer is not None else ()
    for name, chosen in (parts.plan.sets if parts.plan else {}).items():
        yield (*root, "sets", name) if name else root, chosen


def _kept_traceback(run: Run) -> str:
    """Write the current traceback to the run directory; return a note of where it is."""
    said = redact_text(traceback.format_exc())
    with suppress(OSError):
        (run.dir / "error.txt").write_text(said, encoding="utf-8")
        return f"traceback: {shown(run.dir / 'error.txt')}"
    return said


def name_of(source: Source, parts: Parts, plan: Mapping[str, Any]) -> str:
    """Return how messages refer to a component: its kind, and its name in the recipe."""
    use = _use(plan, _place(source, parts))
    return f"{source.word} {use!r}" if use else source.word


def _place(source: Source, parts: Parts) -> tuple[str | int, ...]:
    """Return the keys of the component's table in the recipe."""
    for i, tracker in enumerate(parts.trackers):
        if source.component is tracker:
            return "trackers", i
    own = {id(parts.reward), id(parts.prompt), id(parts.environment)}
    for at, chosen in _sets(parts):
        for slot, component in (("data", chosen.data), ("prompt", chosen.prompt),
                                ("reward", chosen.reward),
                                ("environment", chosen.environment)):  # fmt: skip
            if source.component is component and id(component) not in own:
                return *at, slot
    return TABLES.get(source.word, ())


def _use(plan: Any, keys: tuple[str | int, ...]) -> str:
    for key in keys:
        try:
            plan = plan[key]
        except (KeyError, IndexError, TypeError):
            return ""
    return str(plan.get("use", "")) if keys and isinstance(plan, Mapping) else ""
