"""A run that is made longer than its recipe said, and what it is gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import tomli

from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.fingerprint import value_sum
from alignkit.lifecycle.run_dir import METRICS, RECIPE
from alignkit.recipe import Node

LENGTHS = ("n_steps", "epochs")
"""Keys of an algorithm that say how long it goes on; all else of a run stays as it was."""


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part ``key=value`` items into those that say how long a run goes on, and the others."""
    lengths = [item for item in overrides if item.partition("=")[0].strip() in LENGTHS]
    return lengths, [item for item in overrides if item not in lengths]


def edited(folder: Path) -> bool:
    """Whether ``recipe.toml`` says another length than the run began with."""
    try:
        recipe = tomli.loads((folder / RECIPE).read_text(encoding="utf-8"))
        began = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError):
        return False
    return any(k in began and k in recipe and began[k] != value_sum(recipe[k]) for k in LENGTHS)


def steps_made(folder: Path) -> int:
    """Return the last step that was logged; 0 if there is none."""
    path = folder / METRICS
    if not path.is_file() or not (line := _last_line(path)):
        return 0
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise AlignkitError(
            f"the last line of {shown(path)} is no row of metrics; delete it and resume again"
        ) from None


def _last_line(path: Path) -> bytes:
    """Return the last line that is not empty, of a file that may be long."""
    size, end = 2**16, b""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        while len(end) < length and b"\n" not in end.strip():
            file.seek(-min(size, length), os.SEEK_END)
            end, size = file.read(), 4 * size
    return end.strip().rpartition(b"\n")[2]


def refuse_less(folder: Path, params: Any) -> None:
    """Raise AlignkitError where a run is to have no more steps than it has made."""
    n_steps, made = getattr(params, "n_steps", 0), steps_made(folder)
    if 0 < n_steps <= made:
        raise AlignkitError(
            f"{shown(folder)} has made {made} steps; n_steps = {n_steps} is no more than that"
        )


def unsaved(folder: Path, node: Node) -> AlignkitError:
    """Return the refusal to go on with a finished run without a checkpoint, and what to do."""
    given = ((key, getattr(node.params, key, None)) for key in LENGTHS)
    more = " ".join(f"-s {key}={value}" for key, value in given if value is not None)
    model = quote(f"policy.path={(folder / 'final').absolute()}")
    return AlignkitError(
        f"{shown(folder)} is finished and left no checkpoint, so its optimizer cannot go on where "
        f"it stopped ([checkpoint] says how often one is saved). A new run begins with its weights "
        f"and a new optimizer: alignkit run {in_shell(folder / RECIPE)} {more} -s {model}"
    )


def remark(node: Node) -> str:
    """Return what to say of a learning rate whose schedule depends on the length, or ``""``."""
    optimizer = node.tables().get("optimizer")
    schedule = getattr(optimizer, "schedule", "constant")
    if schedule == "constant":
        return ""
    return (
        f"from here on the learning rate follows the {schedule} schedule of the longer run; the "
        "steps before followed that of the shorter one"
    )
