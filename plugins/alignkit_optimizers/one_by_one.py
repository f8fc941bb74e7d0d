"""AdamW a weight at a time, for state that is not kept beside the weight in its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class OneByOneAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` whose subclass says where a weight's state is kept."""

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
                    self.update(weight, group)
        return loss

    def update(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        """Update one weight, which has a gradient, and its state."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; torch would cast it to the weights' type."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, saved in state_dict["state"].items():
            self.state[weights[index]] = self.loaded(weights[index], saved)

    def loaded(self, weight: Tensor, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of a weight's saved state, where it is kept."""
        raise NotImplementedError


def apply(
    weight: Tensor,
    grad: Tensor,
    means: tuple[Tensor, Tensor],
    step: Tensor,
    group: Mapping[str, Any],
) -> None:
    """Make torch's update of one weight; ``means`` are the running mean and the running square."""
    adamw(
        [weight],
        [grad],
        [means[0]],
        [means[1]],
        [],
        [step],
        foreach=False,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
