"""AdamW that holds what 16-bit weights cannot: updates too small for their last digit add up.

A bfloat16 weight has 8 significant bits, so one of 1.0 stays where it is unless an update is at
least 2^-9 of it; at a learning rate of 1e-5 none is. Here each weight has a second bfloat16 number
with what rounding took from it (Kahan 1965; for training Zamirai et al. 2020, arXiv:2010.06192,
algorithm 5). An update is made in float32 on the sum of both and split again. The running means
are in float32. That is 12 bytes a weight in all, of which 10 are the optimizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class KahanAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` on weights in two parts; weights of 32 bits and more have only one."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: Tensor, group: Mapping[str, Any]) -> None:
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
        adamw(
            [whole],
            [weight.grad.to(wide)],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            foreach=False,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if whole is not weight:
            weight.copy_(whole)
            state["lost"].copy_(whole - weight.to(wide))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; torch would cast it to the weights' type."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, saved in state_dict["state"].items():
            weight = weights[index]
            self.state[weight] = {
                name: value.to("cpu" if name == "step" else weight.device, copy=True)
                for name, value in saved.items()
            }
