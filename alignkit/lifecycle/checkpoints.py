"""Checkpoints as folders: written aside, verified by checksum, found again newest first.

The content of a checkpoint's files is up to its writer; see
``alignkit.engine.training.checkpoint``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.files import file_sum, sync_folder, write_json
from alignkit.lifecycle.folders import discard, put, sync_tree

MANIFEST = "manifest.json"
DAMAGED = ".damaged"

Content = Callable[[Path], object]
"""Writes one file of a checkpoint to the path given."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The point in its run at which a checkpoint was taken."""

    step: int
    """Last step that was finished and logged; 0 = the evaluation before the first."""
    part: int
    """Number of results of the next step, such as a rollout batch or an update."""
    metrics_bytes: int
    """Length of ``metrics.jsonl``."""
    seconds: float
    """Seconds the run had taken."""
    score: float | None = None
    """What keep_best goes by, if the step was evaluated."""

    @property
    def name(self) -> str:
        """Name of the folder; names sort in the same order as the marks."""
        return f"step_{self.step:06d}" + (f"_part_{self.part:04d}" if self.part else "")


class Store:
    """The checkpoints of a run: folders of ``checkpoints/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("step_*") if p.suffix != DAMAGED)

    def write(
        self,
        mark: Mark,
        files: Mapping[str, Content],
        *,
        need: int,
        folder: Callable[[Path], None] | None = None,
        others: Callable[[Path], Mapping[str, Any]] | None = None,
    ) -> Path:
        """Write a checkpoint and return its folder; ``need`` is its approximate size in bytes.

        ``folder`` may add folders of files that are not needed to resume. ``others`` has other
        processes write files, and returns what :data:`MANIFEST` is to say of each, by its name.
        AlignkitError, with the size, if the disk has no room for it; earlier checkpoints are then
        unchanged.
        """
        partial = self.folder / f".{mark.name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                sync_folder(self.folder.parent)
            partial.mkdir()
            sums = {name: _write(partial / name, content) for name, content in files.items()}
            if others is not None:
                sums |= others(partial)
            if folder is not None:
                folder(partial)
                sync_tree(partial)
            write_json(partial / MANIFEST, _signed({"mark": asdict(mark), "files": sums}))
            sync_folder(partial)
            put(partial, self.folder / mark.name)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            from alignkit.lifecycle.full import no_room_for_checkpoint

            raise AlignkitError(no_room_for_checkpoint(self.folder, error, need)) from error
        return self.folder / mark.name

    def newest(self, warn: Callable[[str], None]) -> tuple[Path, Mark] | None:
        """Return the newest checkpoint whose files are as they were written.

        Damaged ones are reported, renamed and skipped. AlignkitError if there are none but damaged
        ones; None if there is none.
        """
        paths = self.paths()
        for path in reversed(paths):
            problem = damage(path)
            if not problem:
                return path, mark_of(path)
            warn(f"warning: {shown(path)} is damaged: {problem}; going back to the one before")
            put(path, path.with_name(path.name + DAMAGED))
        if paths:
            raise AlignkitError(
                f"no checkpoint in {shown(self.folder)} is whole, and going on without one means "
                f"from step 0; to do that, delete that folder and resume again"
            )
        return None

    def ranks(self, score: float, among: int, goal: Literal["max", "min"]) -> bool:
        """Whether ``score`` is among the ``among`` best of the existing checkpoints."""
        have = [s for p in self.paths() if (s := mark_of(p).score) is not None]
        better = [s for s in have if (s >= score if goal == "max" else s <= score)]
        return len(better) < among

    def prune(self, keep_last: int, keep_best: int, goal: Literal["max", "min"]) -> None:
        """Delete all but the newest and the best by their score."""
        paths = self.paths()
        keep = set(paths[len(paths) - keep_last :])
        sign = 1 if goal == "max" else -1
        scores = {p: s for p in paths if (s := mark_of(p).score) is not None}
        keep |= set(sorted(scores, key=lambda p: -sign * scores[p])[:keep_best])
        for path in paths:
            if path not in keep:
                discard(path)

    def tidy(self) -> None:
        """Delete folders that a killed process left half written or half deleted."""
        for path in [*self.folder.glob(".*.partial"), *self.folder.glob(".*.trash")]:
            shutil.rmtree(path)


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint, ``""`` if every byte is as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        body = {k: manifest[k] for k in ("mark", "files")}
        if manifest != _signed(body):
            return f"{MANIFEST} does not have the sum it was written with"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    for name, facts in body["files"].items():
        try:
            size = (path / name).stat().st_size
            if size != facts["size"]:
                return f"{name} has {size:,} bytes, was written with {facts['size']:,}"
            if file_sum(path / name) != facts["sha256"]:
                return f"{name} does not have the sum it was written with"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def mark_of(path: Path) -> Mark:
    """Return where in its run the checkpoint at ``path`` was taken."""
    return Mark(**json.loads((path / MANIFEST).read_text(encoding="utf-8"))["mark"])


def _signed(body: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(body, sort_keys=True)
    return {**json.loads(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _write(path: Path, content: Content) -> dict[str, Any]:
    path.touch()
    mode = path.stat().st_mode
    content(path)
    path.chmod(mode)  # a library that writes aside and renames keeps others from reading
    sync_folder(path)
    return {"size": path.stat().st_size, "sha256": file_sum(path)}
