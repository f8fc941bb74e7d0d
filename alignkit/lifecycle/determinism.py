"""The switch ``--deterministic``: kernels that add in a fixed order, or an error.

It is set before torch is imported, which the kernel never does; the engine reads it when it
seeds the generators. Sweeps and other child processes inherit it with the environment.
"""

from __future__ import annotations

import os

VARIABLE = "ALIGNKIT_DETERMINISTIC"
"""Environment variable: 1 sets the switch for all runs of a shell."""

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""cuBLAS sums in a fixed order only with a workspace of fixed size (cuBLAS documentation, section
"Results reproducibility"); read when the first CUDA context is made."""


def demand() -> None:
    """Request deterministic kernels in this process and those it starts."""
    os.environ[VARIABLE] = "1"
    if os.environ.get(WORKSPACE) not in (":4096:8", ":16:8"):
        os.environ[WORKSPACE] = ":4096:8"


def demanded() -> bool:
    """Whether they were requested."""
    return os.environ.get(VARIABLE, "") not in ("", "0")
