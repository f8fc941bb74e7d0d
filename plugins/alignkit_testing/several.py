"""A check of algorithms on several processes, done where it is asked for: it starts them anew.

The ranks speak by gloo and compute on the CPU with one thread each. What exists in memory only
cannot be loaded by another process: the plugin has to be installed, or a file.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from alignkit import plugins
from alignkit.protocols import Divides
from alignkit_testing.algorithm import is_measured
from alignkit_testing.kit import Subject

CLOSE = 1e-5
"""How far numbers may be apart, absolutely and relatively: sums are taken in another order."""
LONGEST = 900.0
"""Seconds that a run may take."""


def gives_the_same_on_ranks(subject: Subject, size: int) -> None:
    """`size` processes under torchrun log and sample what one does, but for rounding.

    An algorithm made by `alignkit.training` divides its work; any other is refused by torchrun's
    processes, and skipped here.
    """
    import pytest

    if reason := _undivided(subject):
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(tomli_w.dumps(subject.node().dump()), encoding="utf-8")
        left = partial(_left, subject, path, Path(folder))
        with ThreadPoolExecutor() as both:
            one, many = both.map(left, (1, size))
    is_same(one["metrics"], many["metrics"], size)
    for name in one["rows"].keys() | many["rows"].keys():
        assert one["rows"].get(name) == many["rows"].get(name), (
            f"{name} of {size} processes has other rows than that of one; is every response drawn "
            "by t.sample, and everything else drawn on all ranks alike?"
        )


def _undivided(subject: Subject) -> str:
    """Return why the algorithm cannot be checked on several processes, "" if it can."""
    built = subject.build()
    if not (isinstance(built, Divides) and built.on_ranks):
        return "it does not divide its work among processes, and is refused under torchrun"
    if subject.plugin.file or subject.plugin in plugins.load().plugins:
        return ""
    return "it is in memory only: other processes need a file, or an installed plugin"


def _left(subject: Subject, recipe: Path, folder: Path, size: int) -> dict[str, Any]:
    """Run on so many processes; return what they logged and sampled."""
    out = folder / f"ranks-{size}"
    off = [f"no:{name}" for name in subject.registry.disabled]
    files = [str(plugin.file) for plugin in subject.registry.plugins if plugin.file]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    words = ["-m", "alignkit_testing.rank", str(recipe), str(out), *off, *files]
    done = subprocess.run(  # nosec B603 # a list of words, no shell
        [sys.executable, *(torchrun if size > 1 else ()), *words],
        capture_output=True, text=True, check=False, env=_environment(), timeout=LONGEST,
    )  # fmt: skip
    assert done.returncode == 0, f"a run of {size} processes fails:\n{done.stdout}{done.stderr}"
    return {
        "metrics": _lines(out / "metrics.jsonl"),
        "rows": {
            f"{name}/{path.name}": [_untimed(row) for row in _lines(path)]
            for name in ("rollouts", "eval")
            for path in sorted((out / name).rglob("*.jsonl"))
        },
    }


def _environment() -> dict[str, str]:
    """Return that of a process which finds the same modules, has a thread, and sees no GPU."""
    path = os.pathsep.join(filter(None, sys.path))
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **own}


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _untimed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's texts and whole numbers: what rounding cannot change."""
    return {k: v for k, v in row.items() if isinstance(v, str | int)}


def is_same(one: list[dict[str, Any]], many: list[dict[str, Any]], size: int) -> None:
    """Raise AssertionError where the rows of ``size`` processes are not those of one."""
    steps = [[row["step"] for row in rows] for rows in (one, many)]
    assert steps[0] == steps[1], f"one process logs steps {steps[0]}, {size} log {steps[1]}"
    for a, b in zip(one, many, strict=True):
        names = sorted(name for name in a.keys() | b.keys() if not is_measured(name))
        apart = [name for name in names if not _close(a.get(name), b.get(name))]
        assert not apart, (
            f"step {a['step']} on {size} processes differs from one process in {apart[:5]}: "
            f"{[(a.get(n), b.get(n)) for n in apart[:2]]}; is all that an algorithm holds the same "
            "on every rank, and all work divided by t.sample, t.rows and t.update?"
        )


def _close(a: float | None, b: float | None) -> bool:
    """Whether two metrics are the same number; None = logged by neither, or not finite."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
