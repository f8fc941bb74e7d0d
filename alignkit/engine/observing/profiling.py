"""Where a step's time goes: a torch profiler trace of a few steps, and a table of it.

The first step is left out, since it allocates, tries the model out and starts workers. The
trace opens in https://ui.perfetto.dev and chrome://tracing; the phases of the step appear in it as
``alignkit/NAME``. Profiling slows steps down, so ``time/*`` of these steps run high.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

STEPS = 2
"""Steps that are profiled."""

TOP = 15
"""Operators in the table."""


class Profiler:
    """Profiles steps 2 and 3 of a process, or step 1 if there is no other."""

    def __init__(
        self, folder: Path | None, say: Callable[[str], None], *, first: int, last: int
    ) -> None:
        """``folder`` is for the trace, None for no trace; ``first`` and ``last`` are the steps."""
        self.folder, self.say = folder, say
        self.begin = min(first + 1, last) if folder else -1
        self.end = min(self.begin + STEPS - 1, last)
        self.seconds: dict[str, float] = {}
        self._profile: Any = None

    def before(self, step: int) -> None:
        """Start where profiling begins with ``step``."""
        if step == self.begin:
            self._profile = profile(activities=_activities())
            self._profile.start()

    def after(self, step: int, seconds: Mapping[str, float]) -> None:
        """Take a finished step's stopwatch; after the last profiled step write and print."""
        if self._profile is None:
            return
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        if step == self.end:
            self.close()

    def close(self) -> None:
        """Write the trace and print the tables of what there is so far."""
        if self._profile is None or self.folder is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found, self._profile = self._profile, None
        found.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        trace = self.folder / f"trace_step_{self.begin:06d}.json.gz"
        found.export_chrome_trace(str(trace))
        self.say(phases(self.seconds))
        self.say(operators(found.key_averages()))
        self.say(f"profile of steps {self.begin} to {self.end}: {trace}")


def _activities() -> list[ProfilerActivity]:
    device = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *device]


def phases(seconds: Mapping[str, float]) -> str:
    """Return a table of the phases by wall-clock time."""
    total = sum(seconds.values()) or 1.0
    lines = [f"{'phase':<24} {'seconds':>9} {'share':>7}"]
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        lines.append(f"{name:<24} {value:>9.3f} {value / total:>7.1%}")
    return "\n".join(lines)


def operators(averages: Any) -> str:
    """Return a table of the operators that took most time by themselves.

    On CUDA by the time of their kernels, else by that of the CPU.
    """
    rows = [row for row in averages if not row.key.startswith(("alignkit/", "ProfilerStep"))]
    device = any(row.self_device_time_total for row in rows)

    def own(row: Any) -> float:
        return float(row.self_device_time_total if device else row.self_cpu_time_total)

    total = sum(map(own, rows)) or 1.0
    lines = [f"{'operator':<48} {'calls':>8} {'ms':>10} {'share':>7}"]
    for row in sorted(rows, key=own, reverse=True)[:TOP]:
        name = row.key if len(row.key) <= 48 else row.key[:45] + "..."
        lines.append(f"{name:<48} {row.count:>8} {own(row) / 1e3:>10.1f} {own(row) / total:>7.1%}")
    return "\n".join(lines)
