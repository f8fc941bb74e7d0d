"""Numbers, durations and samples as people and tables read them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from alignkit.run_data.transcripts import as_text


def number(value: float) -> str:
    """Return a metric in about four significant digits; not-finite values by name.

    >>> [number(v) for v in (0.123456, 12.0, 1.5e-5, float("nan"), 1234.56)]
    ['0.1235', '12', '1.5e-05', 'nan', '1235']
    """
    if math.isfinite(value) and abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``.

    >>> [clock(s) for s in (5.4, 65, 3725)]
    ['0:05', '1:05', '1:02:05']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def headline(metrics: Mapping[str, float], patterns: Sequence[str]) -> str:
    """Return the metrics that match, in the order of the patterns; without ``train/``.

    >>> headline({"time": 3.0, "train/loss": 0.5, "eval/reward": 1.0}, ["eval/*", "train/loss"])
    'eval/reward 1  loss 0.5'
    """
    found = [name for p in patterns for name in metrics if fnmatchcase(name, p)]
    return "  ".join(
        f"{name.removeprefix('train/')} {number(metrics[name])}" for name in dict.fromkeys(found)
    )


def time_shares(seconds: Mapping[str, float]) -> str:
    """Return what the time went to, the longest first.

    >>> time_shares({"update": 30.0, "rollout": 60.0, "sync": 0.0})
    'rollout 67%, update 33%'
    """
    total = sum(seconds.values()) or 1.0
    parts = sorted(((s / total, name) for name, s in seconds.items()), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in parts if round(share, 2) > 0)


def sample_table(
    rows: Sequence[Mapping[str, Any]], limit: int
) -> tuple[list[str], list[list[str | float | None]]]:
    """Return the columns and cells of the first ``limit`` rows; nested values become JSON.

    The turns of an episode become its transcript as text.
    """
    chosen = [
        {**row, "turns": as_text(row)} if isinstance(row.get("turns"), list) else row
        for row in rows[:limit]
    ]
    columns = list(dict.fromkeys(column for row in chosen for column in row))
    return columns, [[_cell(row.get(column)) for column in columns] for row in chosen]


def _cell(value: Any) -> str | float | None:
    if value is None or isinstance(value, str | int | float):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
