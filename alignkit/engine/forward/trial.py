"""Trying models out: does a faster way of computing give the same as the plain way?

Models differ in what they ask of heads, masks, positions and attention code. Instead of a list of
architectures, a few tokens through the model itself decide, with the same functions that will be
used. A model that gives something else is computed the plain way.
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
    """Cache what ``ask`` finds out about a model, for each type it computes in.

    The model is in evaluation mode meanwhile: dropout would make two passes differ.
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
    """Switch off randomness in training, but keep layers recomputed that should be.

    transformers asks a layer's training mode whether to recompute it, so layers that do keep it;
    what runs within them is switched off by ``recomputing``.
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
    """Return the modules that recompute: layers of transformers' kind, or else whole decoders."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    asked = {module for module in modules if getattr(module, "gradient_checkpointing", False)}
    return {module for module in asked if isinstance(module, GradientCheckpointingLayer)} or asked


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return what products with ``tensor`` are computed in: autocast's type, or its own."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device) and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def apart(got: Tensor, want: Tensor) -> float:
    """Return the largest difference as a share of how far values lie from their mean.

    The mean is over the last dimension, such as a token's logits. Infinite if a value is not a
    number.
    """
    got, want = got.detach().double(), want.detach().double()
    scale = (want - want.mean(-1, keepdim=True)).abs().max()
    share = float((got - want).abs().max() / scale)
    return math.inf if math.isnan(share) else share
