"""What a recipe takes, told before it runs by its components to each other: sizes and work.

``alignkit explain`` asks the policy's table for :class:`ModelSizes` and the algorithm's for
:class:`Workload`, and hands both to ``Params.memory`` of every table.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignkit.errors import shown

WEIGHTS = "weights"
GRADIENTS = "gradients"
OPTIMIZER = "optimizer state"
REFERENCE = "reference policy"
ACTIVATIONS = "activations"
CACHE = "key-value cache"
PURPOSES = (WEIGHTS, GRADIENTS, OPTIMIZER, REFERENCE, ACTIVATIONS, CACHE)
"""What memory is usual for, in the order it is told; a component may add purposes of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """A model, as far as its table and its files tell before it is loaded."""

    parameters: int
    trained: int
    """Parameters with a gradient: all of them, or those of an adapter."""
    number: int
    """Bytes of each parameter."""
    trained_number: int
    """Bytes of each trained parameter, which are those of its gradient too."""
    activations: float | None = None
    """Bytes kept for the backward pass, per token of a micro-batch; None = not known."""
    cache: float | None = None
    """Bytes of the key-value cache, per token; None = not known."""
    backward: int = 4
    """Floating-point operations of the backward pass, per parameter and token."""
    adapted: bool = False
    """Whether the weights stay below an adapter, so that the untrained model takes no memory."""
    on_gpu: bool = False
    """Whether it is sure to compute on a GPU, whose speed is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What an algorithm does with its model; 0 = nothing, or as much as the data say."""

    steps: int = 0
    responses: int = 0
    """Sampled, scored and learned from in a step."""
    length: int = 0
    """Tokens of a response at most."""
    epochs: int = 1
    """Times each response is learned from."""
    at_once: int = 0
    """Responses sampled together at most, those of evaluations included."""
    micro_batch: int = 0
    """Tokens that are learned from together."""


def no_room(folder: Path, parts: Mapping[str, float]) -> str:
    """Return why ``parts``, bytes by what they are for, do not fit on the disk of ``folder``.

    "" if they do. ``folder`` need not exist yet.
    """
    above = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()), None)
    if above is None or os.statvfs(above).f_flag & os.ST_RDONLY:
        return ""  # of a disk that takes nothing, making the folder says so
    free, need = shutil.disk_usage(above).free, sum(parts.values())
    if need <= free:
        return ""
    each = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
    return (
        f"{size(free)} are free in {shown(above)}, and the run needs at least {size(need)}: {each}"
        f"; free some, choose another --out, or save less ([checkpoint])"
    )


def size(number: float) -> str:
    """Return bytes as text.

    >>> size(451840 * 4), size(24.06e9)
    ('1.8 MB', '24.1 GB')
    """
    unit, scale = ("GB", 1e9) if number >= 1e9 else ("MB", 1e6)
    return f"{number / scale:.1f} {unit}"
