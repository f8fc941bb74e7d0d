"""Recipes and runs from Python: what the commands do, in a script or a notebook.

::

    import alignkit

    plan = alignkit.load("alignkit:recipes/grpo.toml", set={"n_steps": 2, "loss.use": "reinforce"})
    print(plan)                              # as `alignkit run --dry-run`
    result = alignkit.run(plan, out="runs/short")
    result.metrics()[-1]["eval/answer_reward"]
    again = alignkit.open_run("runs/short")  # any run directory, finished or not
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from alignkit import plan as plans
from alignkit import plugins as installed
from alignkit import recipe as recipes
from alignkit.commands import command_line
from alignkit.errors import AlignkitError
from alignkit.execution import execute
from alignkit.plugins import Registry
from alignkit.run_result import RunResult, open_run
from alignkit.security.secrets import redact, redact_text
from alignkit.shipped import path_from

__all__ = ["Plan", "RunResult", "load", "open_run", "run"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Plan:
    """A recipe that was found valid, with everything that it leaves out filled in."""

    path: Path
    """The file it was read from."""
    node: recipes.Node
    """The validated tree; ``node.build()`` builds the algorithm."""
    registry: Registry
    """The plugins it chose from."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe, as a run directory keeps it; secrets are left out."""
        found: dict[str, Any] = redact(self.node.dump())
        return found

    @property
    def missing(self) -> list[str]:
        """What this machine lacks to run it, each with its remedy; nothing if it can be run."""
        return [str(problem) for problem in recipes.missing(self.node)]

    def __str__(self) -> str:
        """Return what ``alignkit run --dry-run`` prints: each value, and where it stands."""
        return redact_text(plans.text(self.node, self.path))


def load(
    recipe: PathLike,
    *,
    with_: Sequence[PathLike] = (),
    set: Mapping[str, Any] | Iterable[str] = (),  # as `-s`, short for set
    plugins: Sequence[str] = (),
) -> Plan:
    """Read a recipe and check it, as ``alignkit run RECIPE --dry-run`` does.

    ``recipe`` is a TOML file, ``alignkit:recipes/…`` for one that is shipped. The files of
    ``with_`` are laid on top of it, then ``set``: values by dotted key, as a mapping or as
    ``key=value`` texts. ``plugins`` are files ``NAME.py`` to add, and ``no:NAME`` for plugins to
    leave out. Raises RecipeError that lists every problem.
    """
    files = [path_from(name, Path.cwd()) for name in plugins if not name.startswith("no:")]
    off = [name.removeprefix("no:") for name in plugins if name.startswith("no:")]
    registry = installed.load(off).with_files(files)
    path, *overlays = (path_from(str(name), Path.cwd()) for name in (recipe, *with_))
    return Plan(path, recipes.load(path, registry, overlays, _overrides(set)), registry)


def run(
    plan: Plan | PathLike,
    *,
    out: PathLike | None = None,
    profile: bool = False,
    deterministic: bool = False,
) -> RunResult:
    """Carry a plan out, as ``alignkit run`` does, and return the finished run.

    ``out`` is the run directory, new or empty; left out it is made below ``runs/``. Raises
    AlignkitError when the recipe cannot be built here, RunFailed when the run fails, and
    Interrupted when a signal or a time limit ended it.
    """
    found = plan if isinstance(plan, Plan) else load(plan)
    folder = None if out is None else Path(out)
    how = {"profiled": profile, "deterministic": deterministic}
    plans.refuse_without_room(found.node, folder)
    done = execute(found.node, found.path, folder, command_line(), **how)
    return open_run(done.dir)


def _overrides(given: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Return ``key=value`` texts."""
    if isinstance(given, str):
        raise AlignkitError(f"set takes a mapping, or a list of key=value texts, not {given!r}")
    if not isinstance(given, Mapping):
        return list(given)
    return [f"{key}={_literal(value)}" for key, value in _leaves(given)]


def _leaves(table: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", str(value) if isinstance(value, Path) else value


def _literal(value: Any) -> str:
    """Return a value as TOML writes it."""
    try:
        return tomli_w.dumps({"v": value}).partition("=")[2].strip()
    except TypeError as error:
        raise AlignkitError(f"set: TOML cannot hold {value!r}: {error}") from error
