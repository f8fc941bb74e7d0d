"""Recipes and runs from Python: what the commands do, for scripts and notebooks.

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
from alignkit.errors import AlignkitError, shown
from alignkit.execution import execute
from alignkit.following import follow
from alignkit.lifecycle import meeting
from alignkit.lifecycle.ranks import follows
from alignkit.plugin_files import with_files
from alignkit.plugins import Registry
from alignkit.promises import API
from alignkit.run_result import RunResult, open_run
from alignkit.security.secrets import redact, redact_text
from alignkit.shipped import path_from

__all__ = ["API", "Plan", "RunResult", "load", "open_run", "run"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Plan:
    """A valid recipe, with defaults filled in for everything that it leaves out."""

    path: Path
    """The file it was read from."""
    node: recipes.Node
    """The validated tree; ``node.build()`` builds the algorithm."""
    registry: Registry
    """The plugins that were available to it."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe, as stored in a run directory; secrets are left out."""
        found: dict[str, Any] = redact(self.node.dump())
        return found

    @property
    def missing(self) -> list[str]:
        """What this machine lacks to run it, each with its remedy; nothing if it can be run."""
        return [str(problem) for problem in recipes.missing(self.node)]

    def __repr__(self) -> str:
        """Return the algorithm and the file; a notebook shows this."""
        return f"Plan({self.node.use}, {shown(self.path)})"

    def __str__(self) -> str:
        """Return what ``alignkit run --dry-run`` prints: each value, and where it is set."""
        return redact_text(plans.text(self.node, self.path))


def load(
    recipe: PathLike,
    *,
    with_: Sequence[PathLike] = (),
    set: Mapping[str, Any] | Iterable[str] = (),  # as `-s`, short for set
    plugins: Sequence[PathLike] = (),
) -> Plan:
    """Read a recipe and check it, as ``alignkit run RECIPE --dry-run`` does.

    ``recipe`` is a TOML file, ``alignkit:recipes/…`` for one that is shipped. The files of
    ``with_`` are laid on top of it, then ``set``: values by dotted key, as a mapping or as
    ``key=value`` strings. ``plugins`` lists files ``NAME.py`` to add, and ``no:NAME`` for plugins
    to leave out. Raises RecipeError that lists every problem.
    """
    names = _names("plugins", plugins)
    files = [path_from(name, Path.cwd()) for name in names if not name.startswith("no:")]
    off = [name.removeprefix("no:") for name in names if name.startswith("no:")]
    registry = with_files(installed.load(off), files)
    given = (*_names("recipe", [recipe]), *_names("with_", with_))
    path, *overlays = (path_from(name, Path.cwd()) for name in given)
    return Plan(path, recipes.load(path, registry, overlays, _overrides(set)), registry)


def run(
    plan: Plan | PathLike,
    *,
    out: PathLike | None = None,
    profile: bool = False,
    deterministic: bool = False,
) -> RunResult:
    """Carry a plan out, as ``alignkit run`` does, and return the finished run.

    ``out`` is the run directory, new or empty; by default it is created below ``runs/``. Raises
    AlignkitError when the recipe cannot be built here, RunFailed when the run fails, and
    Interrupted when a signal or a time limit ended it.
    """
    found = plan if isinstance(plan, Plan) else load(plan)
    folder = None if out is None else _folder(out)
    how = {"profiled": profile, "deterministic": deterministic}
    meeting.start()
    with meeting.telling():
        plans.refuse_without_room(found.node, folder)
        if follows():
            return open_run(follow(found.node, deterministic=deterministic).dir)
        done = execute(found.node, found.path, folder, command_line(), **how)
        return open_run(done.dir)


def _folder(out: PathLike) -> Path:
    """Return the path of a folder; AlignkitError if none can have that name."""
    _names("out", [out])
    try:
        os.lstat(out)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AlignkitError(f"cannot make {shown(Path(out))}: {reason}") from error
    return Path(out)


def _names(argument: str, given: Sequence[PathLike]) -> list[str]:
    """Return file names as strings; a single name would be taken for a list of letters."""
    if isinstance(given, str | os.PathLike):
        raise AlignkitError(f"{argument} takes a list, such as [{str(given)!r}]")
    if not isinstance(given, Iterable):
        raise AlignkitError(f"{argument} takes a list, not {given!r:.60}; leave it out for none")
    if wrong := [name for name in given if not isinstance(name, str | os.PathLike)]:
        raise AlignkitError(f"{argument} takes names of files, not {wrong[0]!r:.60}")
    return [str(name) for name in given]


def _overrides(given: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Return ``key=value`` texts."""
    if isinstance(given, Mapping):
        return [f"{key}={_literal(value)}" for key, value in _leaves(given)]
    if not isinstance(given, Iterable):
        raise AlignkitError(f"set takes a mapping, not {given!r:.60}; leave it out for none")
    texts = [given] if isinstance(given, str) else list(given)
    if wrong := [text for text in texts if text is given or not isinstance(text, str)]:
        raise AlignkitError(f"set takes a mapping, or a list of key=value texts, not {wrong[0]!r}")
    return texts


def _leaves(table: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", str(value) if isinstance(value, Path) else value


def _literal(value: Any) -> str:
    """Return a value as TOML writes it."""
    try:
        return tomli_w.dumps({"v": _plain(value)}).partition("=")[2].strip()
    except TypeError as error:
        raise AlignkitError(
            f"set: TOML cannot hold {value!r:.60}: {error}; leave a key out for its default"
        ) from error


def _plain(value: Any) -> Any:
    """Return a number or array of numpy, or a tensor, as Python's own; anything else as it is."""
    return value.tolist() if callable(getattr(value, "tolist", None)) else value
