"""A reward function out of a Python file of the user's."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from alignkit import AlignkitError, TransientError
from alignkit.errors import shown
from alignkit.protocols import Example, Reward
from alignkit_rewards.formats import final_answer
from alignkit_rewards.helpers import helpers

_sums: dict[str, str] = {}
"""SHA-256 of each helper module that was imported, by its name."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, for the record of what was run."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Import ``path`` and return its function; AlignkitError if either cannot be had."""
    module_name = f"alignkit_reward_{file_hash(path)[:16]}"
    spec = _fresh(importlib.util.spec_from_file_location(module_name, path))
    if spec is None or spec.loader is None:
        raise AlignkitError(f"{path} is not a Python file; a reward file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up
    try:
        _make_importable(path)
        spec.loader.exec_module(module)
    except AlignkitError:
        raise
    except Exception as error:
        where = place_of(error, path)
        raise AlignkitError(f"{path} cannot be imported: {error!r}{where}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise AlignkitError(f"{path} defines no function {name!r}")
    return function  # type: ignore[no-any-return]


class _Fresh(SourceFileLoader):
    """Compiles a module anew: what is cached is told apart by size and second only."""

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        """Return nothing that the cache could go by."""
        raise OSError


def _fresh(spec: ModuleSpec | None) -> ModuleSpec | None:
    if spec is not None and isinstance(spec.loader, SourceFileLoader):
        spec.loader = _Fresh(spec.loader.name, spec.loader.path)
    return spec


class _Helpers:
    """Finds the modules beside a file that it imports, before any others of their names."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder, self.names = folder, frozenset(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a helper is to be loaded from; None for any other module."""
        if name.partition(".")[0] not in self.names:
            return None
        return _fresh(PathFinder.find_spec(name, path or [str(self.folder)], target))


def _make_importable(file: Path) -> None:
    """Have the helpers of a file found; AlignkitError where one's name is another module's."""
    folder = file.absolute().parent
    names = {p.relative_to(folder).parts[0].removesuffix(".py") for p in helpers(file.absolute())}
    for name in names:
        _forget_old(name, folder)
    _sums.update({name: _sum_of(name, folder) for name in names})
    sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "folder", None) != folder]
    sys.meta_path.insert(0, _Helpers(folder, names))
    importlib.invalidate_caches()


def _forget_old(name: str, folder: Path) -> None:
    """Drop a helper that was imported before, if it has changed since."""
    loaded = sys.modules.get(name)
    if loaded is None:
        return
    own = _place(loaded)
    if own is None or folder not in own.parents:
        raise AlignkitError(
            f"the module {name!r} in {shown(folder)} has the name of another that is loaded"
            f"{f' ({shown(own)})' if own else ''}; rename one of them"
        )
    if _sums.get(name) != _sum_of(name, folder):
        for inner in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[inner]


def _place(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return Path(file).absolute() if file else None


def _sum_of(name: str, folder: Path) -> str:
    """Return a sum of a helper's files."""
    files = [folder / f"{name}.py", *sorted((folder / name).rglob("*.py"))]
    return " ".join(file_hash(p) for p in files if p.is_file())


def place_of(error: BaseException, path: Path) -> str:
    """Return `` (FILE, line N)``: of the calls that led to an error, the last beside ``path``."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = path.absolute().parent
    own = [f for f in frames if folder in Path(f.filename).absolute().parents]
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({shown(Path(error.filename))}, line {error.lineno})"
    return f" ({shown(Path(own[-1].filename))}, line {own[-1].lineno})" if own else ""


class ScriptReward:
    """Calls the user's function once per response, or once per batch."""

    read = staticmethod(final_answer)

    def __init__(
        self, function: Callable[..., Any], path: Path, name: str, *, batched: bool
    ) -> None:
        self._function = function
        self._path = path
        self._where = f"{path}:{name}"
        self._batched = batched

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Return the function's rewards; AlignkitError if it raises or returns something else."""
        pairs = list(zip(responses, examples, strict=True))
        if self._batched:
            found = list(self._call(list(responses), list(examples)))
            if len(found) != len(responses):
                raise AlignkitError(
                    f"{self._where} returned {len(found)} rewards for {len(responses)} responses"
                )
        else:
            found = [self._call(r, e) for r, e in pairs]
        return [self._as_reward(value) for value in found]

    def _call(self, *arguments: Any) -> Any:
        try:
            return self._function(*arguments)
        except TransientError:
            raise
        except Exception as error:
            raise AlignkitError(
                f"{self._where} raised {error!r}{place_of(error, self._path)}; a reward must take "
                "whatever a model writes"
            ) from error

    def _as_reward(self, value: Any) -> Reward:
        if isinstance(value, Reward):
            return value
        if isinstance(value, Mapping) and "reward" in value:
            parts = {str(k): float(v) for k, v in value.items() if k != "reward"}
            return Reward(float(value["reward"]), parts)
        if isinstance(value, Real) and math.isfinite(value):
            return Reward(float(value))
        raise AlignkitError(
            f"{self._where} returned {value!r}; return a finite number, a Reward, or a mapping of "
            "numbers with the key 'reward'"
        )
