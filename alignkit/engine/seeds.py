"""Where randomness comes from: orders keyed by a string, and the global generators."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from alignkit.lifecycle.determinism import demanded


def shuffled(size: int, key: str) -> list[int]:
    """Return 0 … size-1 in an order that depends on ``key`` alone."""
    order = list(range(size))
    random.Random(key).shuffle(order)
    return order


def seed_everything(seed: int) -> None:
    """Seed every global generator a model or plugin may draw from (Python, NumPy, torch).

    If ``--deterministic`` asks for it, also restrict torch to kernels that give the same bits every
    time; an operation without one raises a RuntimeError that names it.
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


def same_generators(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether every global generator is in the same state: nothing was drawn in between."""
    pairs = zip(a["numpy"], b["numpy"], strict=True)
    return (
        a["python"] == b["python"]
        and all(np.array_equal(x, y) for x, y in pairs)
        and torch.equal(a["torch"], b["torch"])
        and len(a["cuda"]) == len(b["cuda"])
        and all(torch.equal(x, y) for x, y in zip(a["cuda"], b["cuda"], strict=True))
    )


def set_generators(state: Mapping[str, Any]) -> None:
    """Restore every global generator to the state that :func:`generators` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
