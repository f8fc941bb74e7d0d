"""How many threads torch computes with on a CPU, unless somebody said.

torch takes as many as there are cores. That is too many in two cases: a container may be given
less of the machine than it sees, and threads beyond its share only wait for their turns; and the
operations of a very small model are over before several threads have met (0.45 million weights,
2 shared cores: sampling took 1.9 times as long with 2 threads as with 1, an update 1.4 times).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

SMALL = 2_000_000
"""Models with fewer weights compute with one thread."""

_SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_GROUP = Path("/sys/fs/cgroup")
_AT_START = torch.get_num_threads()


def fit_threads(model: nn.Module) -> None:
    """Choose the threads for ``model``, if it is on the CPU and nobody has chosen them."""
    parameters = list(model.parameters())
    said = any(os.environ.get(name) for name in _SAID) or torch.get_num_threads() != _AT_START
    if said or any(p.device.type != "cpu" for p in parameters):
        return
    torch.set_num_threads(threads_for(sum(p.numel() for p in parameters), _AT_START, quota()))


def threads_for(weights: int, cores: int, cpus: float | None) -> int:
    """Return the threads for a model of so many weights on ``cores``, given ``cpus`` of them."""
    if weights < SMALL:
        return 1
    return cores if cpus is None else max(1, min(cores, round(cpus)))


def quota(group: Path = _GROUP) -> float | None:
    """Return how many CPUs' time this container is given, None if all; cgroups 2 and 1."""
    try:
        given, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            given = (group / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if given in ("max", "-1"):
        return None
    return int(given) / int(period)
