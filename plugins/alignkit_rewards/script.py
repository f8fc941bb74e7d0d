"""A reward function out of a Python file of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from alignkit import AlignkitError
from alignkit.protocols import Example, Reward
from alignkit_rewards.formats import final_answer


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, for the record of what was run."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Import ``path`` and return its function; AlignkitError if either cannot be had."""
    module_name = f"alignkit_reward_{file_hash(path)[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise AlignkitError(f"{path} is not a Python file; a reward file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise AlignkitError(f"{path} cannot be imported: {error!r}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise AlignkitError(f"{path} defines no function {name!r}")
    return function  # type: ignore[no-any-return]


class ScriptReward:
    """Calls the user's function once per response, or once per batch."""

    read = staticmethod(final_answer)

    def __init__(self, function: Callable[..., Any], where: str, *, batched: bool) -> None:
        self._function = function
        self._where = where
        self._batched = batched

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Return the function's rewards; AlignkitError if it raises or returns something else."""
        if self._batched:
            found = list(self._call(list(responses), list(examples)))
            if len(found) != len(responses):
                raise AlignkitError(
                    f"{self._where} returned {len(found)} rewards for {len(responses)} responses"
                )
        else:
            found = [self._call(r, e) for r, e in zip(responses, examples, strict=True)]
        return [self._as_reward(value) for value in found]

    def _call(self, *arguments: Any) -> Any:
        try:
            return self._function(*arguments)
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            raise AlignkitError(
                f"{self._where} raised {error!r} (line {line}); a reward must take whatever "
                "a model writes"
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
