"""AdamW whose running means lie in the CPU's memory.

Two numbers a weight are most of what training holds. Here they wait in pinned CPU memory; for a
step each tensor's come to the weight's device, are updated there and go back, so the device
holds one tensor's at a time. The update is torch's own. What it costs is the bus: four times
the size of the running means over both ways in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class OffloadedAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` with its state on the CPU; on a CPU it is that very optimizer."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        devices = set()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
                    devices.add(weight.device)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # the copies back; then the state may be read
        return loss

    def _update(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = _host(weight).zero_()
            state["exp_avg_sq"] = _host(weight).zero_()
        means = [state[k].to(weight.device, non_blocking=True) for k in ("exp_avg", "exp_avg_sq")]
        assert weight.grad is not None
        adamw(
            [weight],
            [weight.grad],
            [means[0]],
            [means[1]],
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
        for name, mean in zip(("exp_avg", "exp_avg_sq"), means, strict=True):
            if mean is not state[name]:
                state[name].copy_(mean, non_blocking=True)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned, without a detour over the device."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, saved in state_dict["state"].items():
            weight = weights[index]
            self.state[weight] = {
                "step": saved["step"].to("cpu", copy=True),
                **{k: _host(weight).copy_(saved[k]) for k in ("exp_avg", "exp_avg_sq")},
            }


def _host(weight: Tensor) -> Tensor:
    """Return CPU memory shaped like ``weight``, pinned where that speeds up copies."""
    return torch.empty_like(weight, device="cpu", pin_memory=weight.device.type == "cuda")
