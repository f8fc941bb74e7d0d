"""Read run directories, whether the run is finished, was interrupted or is still going."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import tomli

from alignkit.errors import AlignkitError, shown
from alignkit.run_data.metrics import Row, read_rows
from alignkit.run_data.plain import (
    facts_of,
    json_of,
    plain,
    text_of,
)

logger = logging.getLogger("alignkit")

STEP = re.compile("step_([0-9]{1,15})")
"""Name of a file of samples, without its suffix."""
STOPPED = "stopped.json"
"""Written by a sweep into a run it stopped early: ``status``, ``reason`` and ``step``."""
SWEEP = "sweep.json"
"""Written by a sweep into its own directory: ``title``, and ``variants``, names in order."""


@dataclass(frozen=True)
class RunData:
    """What a run directory holds."""

    path: Path
    variant: str
    """Name shared by the seeds of one setting: the folders between the sweep and the run."""
    status: str
    """``done``, ``running`` (or killed), ``failed``, ``interrupted``, ``diverged``,
    ``out of time`` or ``unknown``."""
    reason: str
    """Why the run was stopped, if a sweep stopped it."""
    plan: Mapping[str, Any]
    """The resolved recipe."""
    manifest: Mapping[str, Any]
    rows: Sequence[Row]
    """Rows of ``metrics.jsonl``, sorted by step; a number that was not finite is None."""
    warnings: Sequence[str] = field(default=())

    @property
    def seed(self) -> int | None:
        """Seed of the run, if its algorithm takes one."""
        seed = self.manifest.get("seed", self.plan.get("seed"))
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def seconds(self) -> float:
        """Wall-clock seconds from the start to the end, or to the last row."""
        last = self.rows[-1].get("time") if self.rows else None
        return float(self.manifest.get("seconds") or last or 0.0)

    def series(self, metric: str) -> list[tuple[int, float]]:
        """Return (step, value) wherever the metric was logged and finite."""
        return list(zip(*self._columns.get(metric, ((), ())), strict=True))

    def lost(self, metric: str) -> int | None:
        """Return the step that last logged the metric, if it was no finite number there."""
        logged = [row for row in self.rows if metric in row]
        return logged[-1]["step"] if logged and logged[-1][metric] is None else None

    def metrics(self) -> list[str]:
        """Return the names of all metrics, in the order of their first appearance."""
        return [name for name in self._columns if name not in ("step", "time")]

    @cached_property
    def clock(self) -> Mapping[int, float]:
        """Wall-clock seconds at which each step ended."""
        return {row["step"]: float(row.get("time") or 0.0) for row in self.rows}

    @cached_property
    def _columns(self) -> dict[str, tuple[list[int], list[float]]]:
        """Steps and finite values of each metric; one pass over the rows, as there may be many."""
        found: defaultdict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
        for row in self.rows:
            step = row["step"]
            for name, value in row.items():
                steps, values = found[name]
                if isinstance(value, int | float):
                    steps.append(step)
                    values.append(value)
        return dict(found)

    def samples(self, name: str) -> dict[int, Path]:
        """Return the files of sampled responses by step; ``name`` is "rollouts" or "eval"."""
        files = sorted((self.path / name).glob("step_*.jsonl"))
        numbered = ((STEP.fullmatch(f.stem), f) for f in files if f.is_file())
        return {int(found[1]): f for found, f in numbered if found}


def duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``12:05`` (minutes) or ``3:12:05``.

    >>> [duration(s) for s in (44.6, 725, 11525)]
    ['45 s', '12:05', '3:12:05']
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def is_run(folder: Path) -> bool:
    """Whether a run was ever started in ``folder``."""
    return any((folder / name).is_file() for name in ("metrics.jsonl", "manifest.json", STOPPED))


def find(folders: Iterable[Path]) -> list[RunData]:
    """Return the runs in and below the given directories, each once.

    Raises AlignkitError for a directory without any run. Hidden folders, such as a sweep's
    ``.aside``, are not searched.
    """
    found: dict[Path, RunData] = {}
    for folder in folders:
        if not folder.is_dir():
            raise AlignkitError(f"{shown(folder)} is no directory; give a run's or a sweep's")
        runs = list(_below(folder.absolute()))
        if not runs:
            raise AlignkitError(
                f"{shown(folder)} is no run directory and holds none: there is no metrics.jsonl "
                f"and no manifest.json; `alignkit run` prints the directory it writes"
            )
        root = _root(folder.absolute())
        for run in _in_order([read(path, root) for path in runs], folder):
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _root(folder: Path) -> Path:
    """Return the folder that variants are named relative to: for a run of a sweep, the sweep."""
    above = [p for p in folder.parents if (p / SWEEP).is_file()] if is_run(folder) else []
    return above[0] if above else folder


def sweep_notes(folder: Path) -> dict[str, Any]:
    """Return the notes of a sweep in its directory; empty for any other directory."""
    notes = _json(folder / SWEEP, [])
    return {**notes, "variants": [v for v in notes.get("variants", []) if isinstance(v, str)]}


def _in_order(runs: list[RunData], folder: Path) -> list[RunData]:
    """Sort by the order of the sweep's variants, then by name, then by seed."""
    order: list[str] = sweep_notes(folder).get("variants", [])
    places = {name: place for place, name in enumerate(order)}
    return sorted(
        runs, key=lambda r: (places.get(r.variant, len(order)), r.variant, r.seed or 0, r.path)
    )


def _below(folder: Path) -> Iterator[Path]:
    for place, inner, _ in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if is_run(Path(place)):
            inner.clear()
            yield Path(place)


def read(path: Path, root: Path | None = None) -> RunData:
    """Read one run directory; what cannot be read becomes a warning, not an error.

    ``root`` is the sweep's directory, from which the variant's name is taken.
    """
    warnings: list[str] = []
    manifest = _json(path / "manifest.json", warnings)
    stopped = _json(path / STOPPED, warnings)
    rows = read_rows(path / "metrics.jsonl", warnings)
    return RunData(
        path=path,
        variant=_variant(path, root or path),
        status=str(stopped.get("status") or manifest.get("status") or "unknown"),
        reason=str(stopped.get("reason", "")),
        plan=_toml(path / "recipe.toml", warnings),
        manifest=manifest,
        rows=rows,
        warnings=tuple(f"{path.parent.name}/{path.name}: {text}" for text in warnings),
    )


def _variant(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    seeded = path.name.startswith("seed_")
    if seeded and len(parts) > 1:
        return "/".join(parts[:-1])
    if seeded:
        return path.parent.name
    return "/".join(parts) or path.name


def read_samples(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a file of sampled responses.

    Lines that hold none are left out, and their number is logged as a warning, once for a file. A
    last line that is not ended, as a run leaves it that is writing or was killed, is not counted.
    """
    rows: list[dict[str, Any]] = []
    lost = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if limit is not None and len(rows) >= limit:
                break
            if (row := _row_of(line)) is not None:
                rows.append(row)
            elif line.endswith("\n") and line.strip():
                lost += 1
    if lost:
        _tell(shown(path), lost)
    return rows


def _row_of(line: str) -> dict[str, Any] | None:
    try:
        row = plain(json_of(line))
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


@cache
def _tell(name: str, lost: int) -> None:
    said = f"{lost} lines are no responses" if lost > 1 else "a line is no response"
    logger.warning("%s: %s, and left out", name, said)


def _json(path: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        return facts_of(json_of(text_of(path)), path.name, warnings)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.append(f"{path.name} cannot be read: {error}")
        return {}


def _toml(path: Path, warnings: list[str]) -> dict[str, Any]:
    try:
        found = plain(tomli.loads(text_of(path)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(f"{path.name} cannot be read: {error}")
        return {}
    return {key: value for key, value in found.items() if value is not None}
