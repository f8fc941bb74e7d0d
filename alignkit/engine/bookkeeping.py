"""Seeds and stopwatches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed every global generator a model or plugin may draw from (Python, NumPy, torch)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Clock:
    """Adds up wall-clock seconds by name, for the ``time/*`` metrics of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's duration under ``name``, also when it raises."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """Return the seconds so far as ``time/NAME``."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}
