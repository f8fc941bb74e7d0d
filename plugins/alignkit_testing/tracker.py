"""Checks of every tracker: it takes a whole run, odd values included, and changes nothing."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignkit.execution import Run
from alignkit_testing.kit import Check, Subject

METRICS: tuple[dict[str, float], ...] = (
    {"time": 0.0, "eval/reward": 0.25},
    {"time": 1.5, "train/loss": 0.5, "train/grad_norm": 1e9, "time/rollout": 0.1},
    {"time": 2.5, "train/loss": math.nan, "train/grad_norm": math.inf, "a name/with [odd] %s": 1.0},
    {"time": 3.5, "train/loss": -0.0, "eval/reward": 0.75},
)
ROWS: list[dict[str, Any]] = [
    {"prompt": "1 + 1?", "response": "<b>2</b> [red]½ 🧮\0\n", "reward": 1.0, "logprobs": [-0.5]},
    {"prompt": "[/]", "response": "", "reward": 0.0, "finish_reason": "length", "extra": None},
]


def takes_a_whole_run(subject: Subject) -> None:
    """Start, metrics with NaN and infinity and changing keys, tables of odd text, close."""
    with _run() as run:
        tracker = subject.build()
        tracker.start(run)
        for step, metrics in enumerate(METRICS):
            tracker.log(step, dict(metrics))
        for name, rows in (("eval", ROWS), ("rollouts", ROWS), ("eval/hard", []), ("eval", ROWS)):
            tracker.rollouts(3, name, rows)
        tracker.close("done")


def closes_whatever_happened(subject: Subject) -> None:
    """A run may fail before its first step, or between two."""
    for rows in ((), METRICS[:2]):
        with _run() as run:
            tracker = subject.build()
            tracker.start(run)
            for step, metrics in enumerate(rows):
                tracker.log(step, dict(metrics))
            tracker.close("failed")


def leaves_metrics_alone(subject: Subject) -> None:
    """Trackers share one row of metrics and one table, so none may change them."""
    with _run() as run:
        tracker = subject.build()
        tracker.start(run)
        row, table = dict(METRICS[1]), copy.deepcopy(ROWS)
        tracker.log(1, row)
        tracker.rollouts(1, "rollouts", table)
        tracker.close("done")
        assert row == METRICS[1], f"log changes the metrics it is given to {row}"
        assert table == ROWS, f"rollouts changes the rows it is given to {table}"


def leaves_the_run_files_alone(subject: Subject) -> None:
    """`recipe.toml`, `manifest.json` and `metrics.jsonl` are the run's own."""
    with _run() as run:
        own = ("recipe.toml", "manifest.json", "metrics.jsonl")
        before = {name: (run.dir / name).read_bytes() for name in own}
        tracker = subject.build()
        tracker.start(run)
        tracker.log(1, dict(METRICS[1]))
        tracker.rollouts(1, "rollouts", ROWS)
        tracker.close("done")
        for name in own:
            path = run.dir / name
            same = path.is_file() and path.read_bytes() == before[name]
            assert same, f"the tracker writes to or removes the run's {name}"


@contextmanager
def _run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "a_run"
        made.mkdir()
        (made / "recipe.toml").write_text('use = "made_up"\n', encoding="utf-8")
        (made / "manifest.json").write_text('{"status": "running"}\n', encoding="utf-8")
        run = Run(made, {"use": "made_up", "seed": 0, "n_steps": 3})
        try:
            yield run
        finally:
            run.close("done")


CHECKS: tuple[Check, ...] = (
    takes_a_whole_run,
    closes_whatever_happened,
    leaves_metrics_alone,
    leaves_the_run_files_alone,
)
