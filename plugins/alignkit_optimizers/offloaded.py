"""AdamW whose running means are kept in the CPU's memory.

The running means, two numbers per weight, are most of what training holds. Here they stay in pinned
CPU memory; for a step each tensor's come to the weight's device, are updated there and go back, so
the device holds one tensor's at a time. The update is torch's own. The cost is traffic on the bus:
four times the size of the running means over both ways in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from alignkit_optimizers.one_by_one import OneByOneAdamW, apply

_MEANS = ("exp_avg", "exp_avg_sq")


class OffloadedAdamW(OneByOneAdamW):
    """``torch.optim.AdamW`` with its state on the CPU; on a CPU it is that very optimizer."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        loss = super().step(closure)
        weights = (w for group in self.param_groups for w in group["params"] if w.grad is not None)
        for device in {weight.device for weight in weights}:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # the copies back; then the state may be read
        return loss

    def update(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        """Bring a weight's state to its device, update both, and send the state back."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = _host(weight).zero_()
            state["exp_avg_sq"] = _host(weight).zero_()
        mean, square = (state[k].to(weight.device, non_blocking=True) for k in _MEANS)
        assert weight.grad is not None
        apply(weight, weight.grad, (mean, square), state["step"], group)
        for name, value in zip(_MEANS, (mean, square), strict=True):
            if value is not state[name]:
                state[name].copy_(value, non_blocking=True)

    def loaded(self, weight: Tensor, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of a weight's saved state, without a detour over the device."""
        means = {name: _host(weight).copy_(saved[name]) for name in _MEANS}
        return {"step": saved["step"].to("cpu", copy=True), **means}


def _host(weight: Tensor) -> Tensor:
    """Return CPU memory shaped like ``weight``, pinned where that speeds up copies."""
    return torch.empty_like(weight, device="cpu", pin_memory=weight.device.type == "cuda")
