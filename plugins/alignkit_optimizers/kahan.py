"""AdamW for 16-bit weights in which updates too small for the last digit still add up.

A bfloat16 weight has 8 significant bits, so one of 1.0 stays where it is unless an update is at
least 2^-9 of it; at a learning rate of 1e-5 none is. Here each weight has a second bfloat16 number
with what rounding took from it (Kahan 1965; for training Zamirai et al. 2020, arXiv:2010.06192,
algorithm 5). An update is made in float32 on the sum of both and split again. The running means
are in float32. That is 12 bytes a weight in all, of which 10 are the optimizer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignkit_optimizers.one_by_one import OneByOneAdamW, apply


class KahanAdamW(OneByOneAdamW):
    """``torch.optim.AdamW`` on weights in two parts; weights of 32 bits and more have only one."""

    def update(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        """Update the sum of both parts of a weight, and split it again."""
        state = self.state[weight]
        wide = torch.promote_types(weight.dtype, torch.float32)
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight, dtype=wide)
            state["exp_avg_sq"] = torch.zeros_like(weight, dtype=wide)
            if wide != weight.dtype:
                state["lost"] = torch.zeros_like(weight)
        assert weight.grad is not None
        whole = weight if wide == weight.dtype else weight.to(wide) + state["lost"].to(wide)
        means = state["exp_avg"], state["exp_avg_sq"]
        apply(whole, weight.grad.to(wide), means, state["step"], group)
        if whole is not weight:
            weight.copy_(whole)
            state["lost"].copy_(whole - weight.to(wide))

    def loaded(self, weight: Tensor, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of a weight's saved state, in the types it was saved in."""
        return {
            name: value.to("cpu" if name == "step" else weight.device, copy=True)
            for name, value in saved.items()
        }
