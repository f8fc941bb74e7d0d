"""What a recipe needs, estimated before it runs from sizes and workload.

:mod:`alignkit.estimate` asks the policy's table for :class:`ModelSizes` and the algorithm's for
:class:`Workload`, and hands both to ``Params.memory`` of every table. What a learner holds besides
weights and optimizer is estimated by :func:`learning`, both for a recipe that has not begun and for
a micro-batch that ran out of memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignkit.errors import shown

WEIGHTS = "weights"
MASTERS = "float32 masters of the weights"
GRADIENTS = "gradients"
OPTIMIZER = "optimizer state"
REFERENCE = "reference policy"
COPIES = "16-bit copies of the weights"
HEAD = "output head"
ACTIVATIONS = "activations"
CACHE = "key-value cache"
ENGINE = "rollout engine while it samples"
SHARED = "rollout engine"
LIBRARIES = "Python and libraries"
PURPOSES = (
    WEIGHTS, MASTERS, GRADIENTS, OPTIMIZER, REFERENCE, COPIES, HEAD, ACTIVATIONS, CACHE, ENGINE,
    SHARED, LIBRARIES,
)  # fmt: skip
"""The usual purposes of memory, in the order reported; a component may add its own."""

WHILE_LEARNING = frozenset({GRADIENTS, COPIES, HEAD, ACTIVATIONS})
WHILE_SAMPLING = frozenset({ENGINE})
"""Purposes that need memory in only one of the two phases; all others do in both."""

TILE = 2**29
"""Most bytes of float32 logits that the output head computes at once on CUDA."""

BUCKET = 2**24
"""Numbers of gradients that ranks add up in one exchange."""

FILE = 2**28
"""Most bytes of tensors in one file of a sharded checkpoint. A rank holds two of it to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """A model's sizes, as far as its table and its files give them before it is loaded."""

    parameters: int
    trained: int
    """Parameters with a gradient: all of them, or those of an adapter."""
    number: int
    """Bytes of each parameter."""
    trained_number: int
    """Bytes of each trained parameter, which are those of its gradient too."""
    activations: float | None = None
    """Bytes kept for the backward pass, per token of a micro-batch; None = not known."""
    compiled: float | None = None
    """The same where layers are compiled on a GPU; None = they are not, or not known."""
    cache: float | None = None
    """Bytes of the key-value cache, per token; None = not known."""
    backward: int = 4
    """Floating-point operations of the backward pass, per parameter and token."""
    recomputed: bool = False
    """Whether each layer is computed again in the backward pass (gradient checkpointing)."""
    adapted: bool = False
    """Whether the weights stay below an adapter, so that the untrained model takes no memory."""
    on_gpu: bool = False
    """Whether it certainly computes on a GPU, whose speed is not known."""
    half: bool = False
    """Whether float32 weights are copied to 16 bits for matrix products (autocast)."""
    embedding: int = 0
    """Parameters of the output head: vocabulary times hidden size; 0 = not known."""
    vocabulary: int = 0
    """Rows of the output head; 0 = not known."""
    layers: int = 0
    """Layers of the model; 0 = not known."""
    layer: int = 0
    """Parameters of each of them; 0 = not known."""
    card: float | None = None
    """Bytes of the GPU it computes on; None = not known, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What an algorithm does with its model; 0 = nothing, or as determined by the data."""

    steps: int = 0
    responses: int = 0
    """Responses sampled, scored and learned from in a step."""
    length: int = 0
    """Most tokens of a response."""
    epochs: int = 1
    """Times each response is learned from."""
    updates: int = 1
    """Optimizer updates of a step."""
    at_once: int = 0
    """Most responses sampled together, including those of evaluations."""
    micro_batch: int = 0
    """Tokens that are learned from together."""


def no_room(folder: Path, parts: Mapping[str, float]) -> str:
    """Return why ``parts``, bytes by purpose, do not fit on the disk of ``folder``.

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


def learning(sizes: ModelSizes, tokens: int) -> dict[str, float]:
    """Return the bytes a micro-batch of ``tokens`` needs besides weights, gradients and optimizer.

    Copies of the weights and activations stay from the forward pass to the backward pass, and the
    head's own gradient is held until it is added to the others.
    """
    found: dict[str, float] = {}
    if sizes.half:
        found[COPIES] = copies(sizes)
    if sizes.embedding:
        found[HEAD] = head(sizes, tokens)
    kept = sizes.compiled if sizes.on_gpu and sizes.compiled else sizes.activations
    if kept:
        found[ACTIVATIONS] = tokens * kept
    return found


def copies(sizes: ModelSizes) -> float:
    """Return the bytes of the copies that autocast keeps of all weights except the head's."""
    return 2.0 * (sizes.parameters - sizes.embedding) if sizes.half else 0.0


def head(sizes: ModelSizes, tokens: int) -> float:
    """Return the bytes of the output head: tiles of logits, its gradient, 16-bit copies.

    Forwards two tiles and a half stay alive while the next two are made; backwards there are two
    and a half, the gradient and, where it is float32 and products are not, one product. Layers that
    are computed again have freed their copies of weights by then.
    """
    tile = min(TILE, 4 * sizes.vocabulary * tokens)
    copy = 2 * sizes.embedding if sizes.half else 0
    gradient = 0 if sizes.adapted else sizes.embedding * sizes.number
    back = 2 * copy + gradient + 2.5 * tile
    if sizes.recomputed:
        back -= copies(sizes)
    return max(copy + 4.5 * tile, back)
