"""AdamW and its learning-rate schedule on torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit import AlignkitError

if TYPE_CHECKING:
    from torch import nn

    from alignkit_optimizers import AdamW

_FUSED_DEVICES = {"cpu", "cuda"}


class ScheduledAdamW:
    """Makes ``torch.optim.AdamW``, fused where the device has it, and its schedule."""

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
        weights = list(parameters)
        optimizer = torch.optim.AdamW(
            weights,
            lr=p.lr,
            betas=p.betas,
            eps=p.eps,
            weight_decay=p.weight_decay,
            fused=all(w.device.type in _FUSED_DEVICES for w in weights),
        )
        return optimizer, LambdaLR(optimizer, partial(lr_factor, p, total_steps))


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
