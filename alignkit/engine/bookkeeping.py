"""Seeds and stopwatches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.profiler import record_function

from alignkit.engine.metering import Meter
from alignkit.lifecycle.determinism import demanded


def seed_everything(seed: int) -> None:
    """Seed every global generator a model or plugin may draw from (Python, NumPy, torch).

    Where ``--deterministic`` asks for it, also keep torch to kernels that give the same bits
    every time; an operation that has none raises RuntimeError and names itself.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if demanded():
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def generators() -> dict[str, Any]:
    """Return the state of every global generator; see :func:`seed_everything`."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_generators(state: Mapping[str, Any]) -> None:
    """Put every global generator where :func:`generators` found it."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


class Clock:
    """Adds up wall-clock seconds by name, for the ``time/*`` metrics of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.meter = Meter()
        """Counts what is computed while "update" is timed."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's duration under ``name``, also when it raises."""
        start = perf_counter()
        counted = self.meter.counting() if name == "update" else nullcontext()
        try:
            with counted, record_function(f"alignkit/{name}"):  # seen by --profile
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """Return the seconds so far as ``time/NAME``."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}
