"""How many threads torch computes with on a CPU, unless the user has set it.

torch takes as many as there are cores. That is too many in two cases. A container may be given
fewer cores than it sees, and threads beyond its share only wait for their turns. And the operations
of a very small model take less time than synchronising threads (0.45 million weights, 2 shared
cores: sampling took 1.9 times as long with 2 threads as with 1, an update 1.4 times).
"""

from __future__ import annotations

import os

import torch
from torch import nn

from alignkit.lifecycle.cpus import SAID, quota, within

SMALL = 2_000_000
"""Models with fewer weights compute with one thread."""

_AT_START = torch.get_num_threads()


def fit_threads(model: nn.Module) -> None:
    """Set the number of threads for a ``model`` on the CPU, unless the user has set it."""
    parameters = list(model.parameters())
    said = any(os.environ.get(name) for name in SAID) or torch.get_num_threads() != _AT_START
    if said or any(p.device.type != "cpu" for p in parameters):
        return
    torch.set_num_threads(threads_for(sum(p.numel() for p in parameters), _AT_START, quota()))


def threads_for(weights: int, cores: int, cpus: float | None) -> int:
    """Return the threads for a model of that many ``weights``.

    ``cores`` is what the machine has, ``cpus`` the share of them this process may use; None = all.
    """
    return 1 if weights < SMALL else within(cpus, cores)
