"""Out of memory in a forward or backward pass: what takes memory, and what each key would free.

The gigabytes are estimates by :mod:`alignkit.footprint`, for the present policy and micro-batch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from alignkit.engine.forward.checkpointing import is_checkpointed
from alignkit.engine.forward.packable import can_pack
from alignkit.errors import AlignkitError
from alignkit.footprint import GRADIENTS, OPTIMIZER, WEIGHTS, ModelSizes, learning
from alignkit.model_shape import ModelShape

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer

    from alignkit.engine.tokens import TrainRow
    from alignkit.protocols import Policy

OPTIMIZERS: WeakKeyDictionary[nn.Module, TorchOptimizer] = WeakKeyDictionary()
"""The optimizer of each model. A learner enters it, so that its state's memory is counted."""

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Environment variables with the settings of torch's allocator; the first that is set counts."""

TOLD = 0.05e9
"""Smallest number of bytes that is reported."""


@contextmanager
def advice_on_oom(policy: Policy, rows: Sequence[TrainRow]) -> Iterator[None]:
    """Turn running out of memory over the micro-batch ``rows`` into an AlignkitError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).partition(". ")[0]
        told = advice(policy, rows, scattered(str(error)))
        raise AlignkitError(f"{first}, with {told}") from error


def advice(policy: Policy, rows: Sequence[TrainRow], unused: float = 0.0) -> str:
    """Describe what takes memory, and what would free some, the most effective first.

    ``unused`` is the bytes that the allocator holds in pieces too small to be used.
    """
    longest = max(row.length for row in rows)
    tokens = _computed(policy, rows)
    remedies = _remedies(policy, tokens)
    if unused and not expandable(os.environ):
        remedies["start with PYTORCH_ALLOC_CONF=expandable_segments:True"] = unused
    held = f"{tokens} tokens in the micro-batch"
    if longest < tokens:
        budget = max(longest, tokens // 2)
        smaller = f"set token_budget = {budget}, which changes no result"
        sizes = sizes_of(policy)
        freed = _beside(sizes, tokens) - _beside(sizes, budget)
        # This key is named even where it frees little: it changes no result.
        told = _listed({**remedies, smaller: freed}, always=smaller)
        return f"{held}: {told}{_breakdown(policy, tokens)}"
    others = _listed(remedies)
    return (
        f"{held}, one response: no token_budget makes that smaller. {others + '. ' * bool(others)}"
        "Set gradient_checkpointing = true in [policy] if it is not; a smaller max_tokens in "
        "[rollout]; or, where an engine shares the GPU, a smaller gpu_memory_utilization"
        f"{_breakdown(policy, tokens)}"
    )


def sizes_of(policy: Policy, *, recomputed: bool | None = None) -> ModelSizes:
    """Return the sizes of a loaded model; for an unknown architecture some are 0 or None.

    ``recomputed`` overrides whether its layers are computed again in the backward pass.
    """
    model: Any = policy.model
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    number = parameters[0].element_size()
    with policy.autocast():
        half = number == 4 and torch.is_autocast_enabled(parameters[0].device.type)
    again = is_checkpointed(model) if recomputed is None else recomputed
    shape = ModelShape.read(getattr(model, "config", None))
    known = shape is not None and shape.parameters is not None
    kept = shape.activations(number, checkpointing=again, half=half) if shape and known else None
    return ModelSizes(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in trained),
        number=number,
        trained_number=trained[0].element_size() if trained else number,
        activations=kept,
        recomputed=again,
        adapted=len(trained) < len(parameters),
        half=half,
        embedding=shape.vocabulary * shape.hidden if shape else 0,
        vocabulary=shape.vocabulary if shape else 0,
    )


def expandable(environment: Mapping[str, str]) -> bool:
    """Whether torch's allocator may grow its segments, so that few pieces stay unused.

    >>> expandable({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"})
    True
    """
    said = next((environment[name] for name in ALLOCATOR if environment.get(name)), "")
    return "expandable_segments:true" in said.lower().replace(" ", "")


def scattered(message: str) -> float:
    """Return the bytes that are reserved and not allocated, according to torch's ``message``.

    >>> scattered("and 1.50 GiB is reserved by PyTorch but unallocated.") == 1.5 * 2**30
    True
    """
    found = re.search(r"([\d.]+) ([KMG])iB is reserved by PyTorch but unallocated", message)
    return float(found[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[found[2]] if found else 0.0


def _remedies(policy: Policy, tokens: int) -> dict[str, float]:
    """Return the keys that free memory independently of the micro-batch, with the bytes freed."""
    sizes, state = sizes_of(policy), _state(policy.model)
    again = _beside(sizes, tokens) - _beside(sizes_of(policy, recomputed=True), tokens)
    small = state - 2 * sizes.trained
    return {
        "set gradient_checkpointing = true in [policy]": again,
        'set implementation = "offload" in [optimizer]': state,
        'set implementation = "8bit" in [optimizer], instead': small,
    }


def _listed(remedies: Mapping[str, float], *, always: str = "") -> str:
    """Join remedies with the bytes they free, largest first; leave out those that free little."""
    ordered = sorted(remedies.items(), key=lambda item: -item[1])
    return "; ".join(
        f"{text} ({freed / 1e9:.1f} GB)" if freed >= TOLD else text
        for text, freed in ordered
        if freed >= TOLD or text == always
    )


def _breakdown(policy: Policy, tokens: int) -> str:
    """Return what takes the most memory, "" if nothing takes much."""
    sizes = sizes_of(policy)
    taken = {
        WEIGHTS: sizes.parameters * sizes.number,
        GRADIENTS: sizes.trained * sizes.trained_number,
        OPTIMIZER: _state(policy.model),
        **learning(sizes, tokens),
    }
    told = [f"{size / 1e9:.1f} GB {name}" for name, size in taken.items() if size >= TOLD]
    return f". It holds about {', '.join(told)}" if told else ""


def _beside(sizes: ModelSizes, tokens: int) -> float:
    return sum(learning(sizes, tokens).values())


def _state(model: nn.Module) -> float:
    """Return the bytes of the optimizer's state that are on the model's device."""
    optimizer, device = OPTIMIZERS.get(model), next(model.parameters()).device
    states = optimizer.state.values() if optimizer else ()
    tensors = [t for state in states for t in state.values() if isinstance(t, torch.Tensor)]
    return float(sum(t.numel() * t.element_size() for t in tensors if t.device == device))


def _computed(policy: Policy, rows: Sequence[TrainRow]) -> int:
    """Return the tokens that ``token_budget`` counts: padding, or shared prompts once."""
    try:
        with policy.autocast():
            packs = can_pack(policy.model)
    except torch.OutOfMemoryError:  # there is no memory for the trial either
        packs = False
    if not packs:
        return len(rows) * max(row.length for row in rows)
    prompts = {tuple(row.prompt_ids) for row in rows}
    return sum(map(len, prompts)) + sum(len(row.response_ids) for row in rows)
