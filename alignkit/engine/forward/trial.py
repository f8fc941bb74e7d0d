"""Trials of a model: does a faster computation give the same result as the plain one?

Models differ in how they use heads, masks, positions and attention code. There is no list of
architectures: a few tokens are run through the model itself, with the same functions that will be
used later. A model whose results differ is computed the plain way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

T = TypeVar("T")


def once_per_model(ask: Callable[[nn.Module], T]) -> Callable[[nn.Module], T]:
    """Cache the result of ``ask`` for a model, once for each type it computes in.

    The model is in evaluation mode while ``ask`` runs: dropout would make two passes differ.
    """
    known: WeakKeyDictionary[nn.Module, dict[torch.dtype, T]] = WeakKeyDictionary()

    @wraps(ask)
    def remembered(model: nn.Module) -> T:
        found, dtype = known.setdefault(model, {}), compute_dtype(next(model.parameters()))
        if dtype not in found:
            with evaluating(model):
                found[dtype] = ask(model)
        return found[dtype]

    return remembered


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch off training-only behaviour while the block runs, in every part of ``model``."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Switch off randomness in training, but still recompute the layers that should be.

    transformers recomputes a layer only in training mode, so checkpointed layers stay in it;
    ``recomputing`` switches off the randomness inside them.
    """
    training = [module for module in model.modules() if module.training]
    if training and torch.is_grad_enabled():  # else nothing is computed again
        recomputed = _recomputed(training)
        training = [module for module in training if module not in recomputed]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _recomputed(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Return the modules that recompute: transformers' checkpointed layers, or whole decoders."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    asked = {module for module in modules if getattr(module, "gradient_checkpointing", False)}
    return {module for module in asked if isinstance(module, GradientCheckpointingLayer)} or asked


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type of matrix products with ``tensor``: autocast's, or the tensor's own."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device) and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def apart(got: Tensor, want: Tensor) -> float:
    """Return the largest difference, divided by the largest distance of ``want`` from its mean.

    The mean is over the last dimension, such as a token's logits. Infinite if a value is NaN.
    """
    got, want = got.detach().double(), want.detach().double()
    scale = (want - want.mean(-1, keepdim=True)).abs().max()
    share = float((got - want).abs().max() / scale)
    return math.inf if math.isnan(share) else share
