"""AdamW and its learning-rate schedule on torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from logging import ERROR, getLogger
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit import AlignkitError
from alignkit_optimizers.offloaded import OffloadedAdamW

if TYPE_CHECKING:
    from torch import nn

    from alignkit_optimizers import AdamW

_FUSED_DEVICES = {"cpu", "cuda"}


class ScheduledAdamW:
    """Makes AdamW, in the implementation asked for, and its schedule."""

    def __init__(self, params: AdamW) -> None:
        self.params = params

    @property
    def max_grad_norm(self) -> float:
        """Global L2 norm that gradients are scaled down to; ``inf`` = never."""
        return self.params.max_grad_norm

    def start(
        self, parameters: Iterable[nn.Parameter], *, total_steps: int
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Return the optimizer and its schedule over ``total_steps`` optimizer steps."""
        p = self.params
        if p.warmup_steps > total_steps:
            raise AlignkitError(
                f"optimizer.warmup_steps is {p.warmup_steps}, but the run has only {total_steps} "
                "optimizer steps; lower it, or the learning rate never reaches lr"
            )
        optimizer = _adamw(p, list(parameters))
        return optimizer, LambdaLR(optimizer, partial(lr_factor, p, total_steps))


def _adamw(p: AdamW, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    how: dict[str, Any] = {
        "lr": p.lr,
        "betas": p.betas,
        "eps": p.eps,
        "weight_decay": p.weight_decay,
    }
    if p.implementation == "8bit":
        # At its import it warns of kernels for 4-bit layers, which nothing here uses.
        getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
        from alignkit_optimizers.eight_bit import AdamW8bit

        return AdamW8bit(weights, **how)
    if p.implementation == "offload":
        return OffloadedAdamW(weights, **how)
    fused = all(w.device.type in _FUSED_DEVICES for w in weights)
    if p.implementation == "fused" and fused:
        return torch.optim.AdamW(weights, fused=True, **how)
    return torch.optim.AdamW(weights, **how)


def lr_factor(params: AdamW, total_steps: int, step: int) -> float:
    """Return the share of ``lr`` that optimizer step ``step`` (from 0) uses."""
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    if params.schedule == "constant":
        return 1.0
    span = max(total_steps - params.warmup_steps, 1)
    done = min((step - params.warmup_steps) / span, 1.0)
    left = 1 - done if params.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return params.min_lr_ratio + (1 - params.min_lr_ratio) * left
