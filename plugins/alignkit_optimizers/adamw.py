"""AdamW and its learning-rate schedule on torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from logging import ERROR, getLogger
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit import AlignkitError
from alignkit_optimizers.kahan import KahanAdamW
from alignkit_optimizers.offloaded import OffloadedAdamW

if TYPE_CHECKING:
    from torch import nn

_FUSED_DEVICES = {"cpu", "cuda"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledAdamW:
    """Makes AdamW, in the implementation asked for, and its schedule; see the keys of ``adamw``."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    max_grad_norm: float
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: int
    min_lr_ratio: float
    implementation: Literal["fused", "foreach", "8bit", "offload", "kahan"]

    @property
    def on_shards(self) -> bool:
        """Whether it treats every number by itself, so that it can be given parts of tensors."""
        return self.implementation != "8bit"  # which scales numbers by the blocks they are in

    def start(
        self, parameters: Iterable[nn.Parameter], *, total_steps: int
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Return the optimizer and its schedule over ``total_steps`` optimizer steps."""
        if self.warmup_steps > total_steps:
            raise AlignkitError(
                f"optimizer.warmup_steps is {self.warmup_steps}, but the run has only "
                f"{total_steps} optimizer steps; lower it, or the learning rate never reaches lr"
            )
        optimizer = self._adamw(list(parameters))
        return optimizer, LambdaLR(optimizer, partial(self.lr_factor, total_steps))

    def lr_factor(self, total_steps: int, step: int) -> float:
        """Return the share of ``lr`` that optimizer step ``step`` (from 0) uses."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        # The last step uses the floor, but for one of 0: a step at that rate would be wasted.
        last = total_steps - 1 if self.min_lr_ratio else total_steps
        span = max(last - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / span, 1.0)
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * left

    def _adamw(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        how: dict[str, Any] = {
            "lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
        }
        if self.implementation == "8bit":
            # At its import it warns of kernels for 4-bit layers, which nothing here uses.
            getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
            from alignkit_optimizers.eight_bit import AdamW8bit

            return AdamW8bit(weights, **how)
        if self.implementation == "offload":
            return OffloadedAdamW(weights, **how)
        if self.implementation == "kahan":
            return KahanAdamW(weights, **how)
        fused = all(w.device.type in _FUSED_DEVICES for w in weights)
        if self.implementation == "fused" and fused:
            return torch.optim.AdamW(weights, fused=True, **how)
        return torch.optim.AdamW(weights, **how)
