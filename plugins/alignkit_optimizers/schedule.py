"""The learning-rate schedule that all built-in optimizers have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit import AlignkitError

if TYPE_CHECKING:
    from torch import nn

Course = Literal["constant", "linear", "cosine"]


@dataclass(slots=True, kw_only=True)
class Scheduled:
    """An optimizer of torch's with its schedule; ``make`` says which optimizer it is."""

    lr: float
    max_grad_norm: float
    schedule: Course
    warmup_steps: int
    warmup_ratio: float
    min_lr_ratio: float

    def make(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of these weights."""
        raise NotImplementedError

    def start(
        self, parameters: Iterable[nn.Parameter], *, total_steps: int
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Return the optimizer and its schedule over ``total_steps`` optimizer steps."""
        if self.warmup_steps > total_steps:
            raise AlignkitError(
                f"optimizer.warmup_steps is {self.warmup_steps}, but the run has only "
                f"{total_steps} optimizer steps; lower it, or the learning rate never reaches lr"
            )
        optimizer = self.make(list(parameters))
        return optimizer, LambdaLR(optimizer, partial(self.lr_factor, total_steps))

    def warmup(self, total_steps: int) -> int:
        """Return the number of optimizer steps of warm-up: as given, or a share, rounded up."""
        return self.warmup_steps or math.ceil(round(self.warmup_ratio * total_steps, 9))

    def lr_factor(self, total_steps: int, step: int) -> float:
        """Return the share of ``lr`` that optimizer step ``step`` (from 0) uses."""
        warmup = self.warmup(total_steps)
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        # The last step uses the floor, but for one of 0: a step at that rate would be wasted.
        last = total_steps - 1 if self.min_lr_ratio else total_steps
        span = max(last - warmup, 1)
        done = min((step - warmup) / span, 1.0)
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * left
