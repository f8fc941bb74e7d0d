"""How many CPUs this process may keep busy, and with how many threads. Imports no torch.

A container may be given less of a machine than it sees: threads beyond its share only wait for
their turns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that set the number of threads."""

GROUP = Path("/sys/fs/cgroup")


def quota(group: Path | None = None) -> float | None:
    """Return how many CPUs' time this container may use, None if all; cgroups 2 and 1."""
    group = group or GROUP
    try:
        given, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            given = (group / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if given in ("max", "-1") else int(given) / int(period)


def within(cpus: float | None, cores: int) -> int:
    """Return how many of ``cores`` a share of ``cpus`` keeps busy: one at least, None = all."""
    return cores if cpus is None else max(1, min(cores, round(cpus)))


def usable_cpus() -> int:
    """Return the number of CPUs that this process may run on and use fully."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return within(quota(), cores or 1)


def threads_at_most(environment: Mapping[str, str]) -> int:
    """Return the threads of a process with that environment, as far as is known without torch.

    torch may take fewer: for a small model, or where there are fewer cores.
    """
    said = (environment.get(name, "") for name in SAID)
    return next((int(number) for number in said if number.isdigit()), usable_cpus())


def threads_used() -> int | None:
    """Return the threads torch computes with; None if it is not loaded."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else None
