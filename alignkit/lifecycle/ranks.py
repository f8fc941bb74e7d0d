"""Which of a run's processes this is, as torchrun tells it. Imports no torch.

Rank 0 leads: it alone has the run directory, the trackers and the console. The other ranks follow
and are told by it where the run stands.
"""

from __future__ import annotations

import os

from alignkit.errors import AlignkitError
from alignkit.protocols import Divides


def size() -> int:
    """Return the number of processes of the run (``WORLD_SIZE``)."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Return this process's number among them, from 0 (``RANK``)."""
    return int(os.environ.get("RANK") or 0) if size() > 1 else 0


def follows() -> bool:
    """Whether another process leads the run."""
    return rank() > 0


def refuse_unless_divided(part: object, name: str) -> None:
    """Raise AlignkitError on several ranks, unless ``part`` divides its work among them."""
    if size() > 1 and not (isinstance(part, Divides) and part.on_ranks):
        here = f"this is one of {size()} processes (WORLD_SIZE={size()}), and {name} does not"
        raise AlignkitError(f"{here} divide its work among several: start it without torchrun")
