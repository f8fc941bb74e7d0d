"""Which of a run's processes this is, as torchrun tells it. Imports no torch.

Rank 0 leads: it alone has the run directory, the trackers and the console. The other ranks follow
and are told by it where the run stands.
"""

from __future__ import annotations

import os
from typing import Any

from alignkit.errors import AlignkitError
from alignkit.recipe import Node


def size() -> int:
    """Return the number of processes of the run; 1 where nobody says (``WORLD_SIZE``)."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Return this process's number among them, from 0 (``RANK``)."""
    return _number("RANK", 0) if size() > 1 else 0


def follows() -> bool:
    """Whether another process leads the run."""
    return rank() > 0


def refuse_backends(node: Node) -> None:
    """Raise AlignkitError if the recipe's rollout backend does not work on several ranks."""
    for part in node.walk():
        if part.kind == "rollout_backend" and not _able(part.params):
            raise AlignkitError(
                f"rollout {part.use!r} works in a run of one process, and this is one of {size()} "
                f"(WORLD_SIZE={size()}): start it with alignkit run, without torchrun, or use "
                f'another, such as "hf"'
            )


def refuse_algorithm(algorithm: object, use: str) -> None:
    """Raise AlignkitError if the algorithm would do its whole run in every process."""
    if not _able(algorithm):
        raise AlignkitError(
            f"this is one of {size()} processes (WORLD_SIZE={size()}), and each would do the whole "
            f"run of {use!r} by itself: start it with alignkit run, without torchrun"
        )


def _able(part: Any) -> bool:
    return size() == 1 or bool(getattr(part, "on_ranks", False))


def _number(name: str, default: int) -> int:
    said = os.environ.get(name, "")
    return int(said) if said.isdigit() else default
