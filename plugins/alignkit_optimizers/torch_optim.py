"""Optimizers that torch has itself, with a schedule; for Muon, AdamW beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from alignkit_optimizers.schedule import Scheduled


@dataclass(slots=True, kw_only=True)
class ScheduledRmsProp(Scheduled):
    """Makes RMSprop and its schedule; see the keys of ``rmsprop``."""

    alpha: float
    eps: float
    momentum: float
    weight_decay: float

    @property
    def on_shards(self) -> bool:
        """Whether it can be given parts of tensors: it treats every number by itself."""
        return True

    def make(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's RMSprop, with weight decay apart from the gradient, as AdamW has it."""
        return DecayedRmsProp(
            weights, lr=self.lr, alpha=self.alpha, eps=self.eps, momentum=self.momentum
        ).decayed(self.weight_decay)


class DecayedRmsProp(torch.optim.RMSprop):
    """torch's RMSprop with decoupled weight decay: torch's own adds it to the gradient."""

    decay = 0.0

    def decayed(self, decay: float) -> DecayedRmsProp:
        """Set the weight decay."""
        self.decay = decay
        return self

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Shrink every weight that has a gradient, then update it."""
        for group in self.param_groups if self.decay else ():
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * self.decay)
        loss: float | None = super().step(closure)
        return loss


@dataclass(slots=True, kw_only=True)
class ScheduledMuon(Scheduled):
    """Makes Muon beside AdamW, and their schedule; see the keys of ``muon``."""

    momentum: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    outer: set[int] = field(default_factory=set)
    """Ids of the weights of embeddings and of the output head."""

    def look(self, model: nn.Module) -> None:
        """Note which weights are embeddings or the output head."""
        parts = [m for m in model.modules() if isinstance(m, nn.Embedding)]
        head = getattr(model, "get_output_embeddings", lambda: None)()
        held = [*parts, *([] if head is None else [head])]
        self.outer = {id(weight) for part in held for weight in part.parameters()}

    def make(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return one optimizer whose matrices are Muon's and whose other weights are AdamW's."""
        inner = [w for w in weights if w.ndim == 2 and id(w) not in self.outer]
        others = [w for w in weights if w.ndim != 2 or id(w) in self.outer]
        parts: list[torch.optim.Optimizer] = []
        if inner:
            muon = torch.optim.Muon(
                inner,
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            parts.append(muon)
        if others:
            adamw = torch.optim.AdamW(
                others,
                lr=self.lr,
                betas=self.betas,
                eps=self.eps,
                weight_decay=self.weight_decay,
            )
            parts.append(adamw)
        return Together(parts)


class Together(torch.optim.Optimizer):
    """Several optimizers of different weights as one, with one state to save."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([w for part in parts for g in part.param_groups for w in g["params"]], {})
        self.parts = list(parts)
        self.param_groups = [group for part in parts for group in part.param_groups]
        for part in self.parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned, and hand its groups to the parts."""
        super().load_state_dict(dict(state_dict))
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state
