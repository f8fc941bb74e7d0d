"""AdamW on torch, in the implementations that its keys offer."""

from __future__ import annotations

from dataclasses import dataclass
from logging import ERROR, getLogger
from typing import TYPE_CHECKING, Any, Literal

import torch

from alignkit_optimizers.kahan import KahanAdamW
from alignkit_optimizers.offloaded import OffloadedAdamW
from alignkit_optimizers.schedule import Scheduled

if TYPE_CHECKING:
    from torch import nn

_FUSED_DEVICES = {"cpu", "cuda"}


@dataclass(slots=True, kw_only=True)
class ScheduledAdamW(Scheduled):
    """Makes AdamW, in the implementation asked for, and its schedule; see the keys of ``adamw``."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    implementation: Literal["fused", "foreach", "8bit", "offload", "kahan"]

    @property
    def on_shards(self) -> bool:
        """Whether it treats every number by itself, so that it can be given parts of tensors."""
        return self.implementation != "8bit"  # which scales numbers by the blocks they are in

    def make(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
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
