"""A run directory: a free one, or one to go on with from what it holds, back to a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.checkpoints import Mark
from alignkit.lifecycle.files import discard
from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.fingerprint import differences, fingerprint
from alignkit.lifecycle.manifest import Manifest
from alignkit.recipe import Node

RECIPE = "recipe.toml"
"""Written last of what a run starts with: a directory without it never began."""
METRICS = "metrics.jsonl"
BEFORE_THE_RUN = {".lock", FINGERPRINT, "manifest.json"}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a resumed run goes on from."""

    checkpoint: Path | None
    """None = from the beginning: it was ended before its first checkpoint."""
    mark: Mark

    @property
    def first_step(self) -> int:
        """The first step that is logged from now on."""
        return self.mark.step + 1 if self.checkpoint else 0


BEGINNING = Start(None, Mark(0, 0, 0, 0.0))


def begun(folder: Path) -> bool:
    """Whether a run was started in ``folder``, so that it can be resumed."""
    return (folder / RECIPE).is_file()


def is_free(folder: Path) -> bool:
    """Whether a run may start in ``folder``: absent, empty, or left before anything began."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    left = {p.name for p in folder.iterdir()} - BEFORE_THE_RUN
    return all(name.endswith(".partial") for name in left)


def folder_for(out: Path | None, recipe: Path) -> Path:
    """Return the directory to run in: ``out``, which must be free, or a new one below runs/."""
    if out is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        names = (f"{recipe.stem}-{stamp}{f'-{n}' if n > 1 else ''}" for n in range(1, 1000))
        return next(p for n in names if not (p := Path.cwd() / "runs" / n).exists())
    if is_free(out):
        return out.absolute()
    if begun(out) and manifest_of(out).facts.get("status") != "done":
        raise AlignkitError(
            f"{shown(out)} holds a run that is not finished; go on with it: "
            f"alignkit resume {shown(out)}"
        )
    raise AlignkitError(f"{shown(out)} exists and is not empty; choose another --out")


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest of a run to resume; AlignkitError where there is none."""
    if not begun(folder):
        raise AlignkitError(
            f"{shown(folder)} holds no run that could be resumed: there is no {RECIPE} in it; "
            f"`alignkit run` starts one"
        )
    try:
        return Manifest.read(folder)
    except (OSError, ValueError) as error:
        raise AlignkitError(f"{shown(folder)}/manifest.json cannot be read: {error}") from error


def changes(folder: Path, node: Node, machine: dict[str, Any]) -> list[str]:
    """Return what is not as it was when the run started and could change its numbers."""
    try:
        before = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [f"{FINGERPRINT}, which says what the run was started with, cannot be read"]
    return differences(before, fingerprint(node, machine))


def too_many(found: list[str], folder: Path) -> AlignkitError:
    """Return the refusal to resume after changes."""
    lines = "\n".join(f"  {line}" for line in found)
    return AlignkitError(
        f"{shown(folder)} would not go on as it began; since it was started, these have changed:\n"
        f"{lines}\nput them back, or go on all the same: alignkit resume {shown(folder)} "
        f"--allow-changes"
    )


def rewind(folder: Path, start: Start) -> None:
    """Make the directory what it was at the checkpoint: no row or file of a later step is left."""
    metrics = folder / METRICS
    have = metrics.stat().st_size if metrics.exists() else 0
    if have < start.mark.metrics_bytes:
        raise AlignkitError(
            f"{shown(metrics)} has {have:,} bytes and had {start.mark.metrics_bytes:,} at the "
            f"checkpoint: rows were lost; without them the run cannot be made whole again"
        )
    if metrics.exists():
        with metrics.open("r+b") as file:
            file.truncate(start.mark.metrics_bytes)
    for name in ("rollouts", "eval"):
        for path in (folder / name).rglob("step_*.jsonl"):
            number = path.stem.removeprefix("step_")
            if number.isdigit() and int(number) >= start.first_step:
                path.unlink()
    for name in ("error.txt", "stopped.json"):
        (folder / name).unlink(missing_ok=True)
    if (folder / "final").is_dir():
        discard(folder / "final")
