"""Does a loss learn from responses whose advantage is zero?

Most only scale the advantage: such a response then adds exactly zero to the loss and to the
gradient, and need not be computed. A loss with another term, a KL penalty for one, does learn
from it. Rather than a list of losses, the loss itself is asked.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from alignkit.protocols import LossInputs, LossType

_SHAPE = (3, 4)
_SIZES = (0.1, 3.0)
"""Nats: log-probs that hardly differ, and some that are far outside any clipping range."""


def needs_advantage(loss: LossType, given: Collection[str]) -> bool:
    """Whether ``loss`` is zero, and flat, wherever the advantage is zero.

    It is called with random log-probs and every advantage zero. ``given`` names the optional
    inputs it gets besides ``old_logprobs``, which it always gets. False as soon as one loss or
    one gradient is not exactly zero.
    """
    names = {"old_logprobs", *given}
    generator = torch.Generator().manual_seed(0)
    return all(_is_flat(loss, names, size, generator) for size in _SIZES)


def _is_flat(loss: LossType, given: set[str], size: float, generator: torch.Generator) -> bool:
    def draw() -> Tensor:
        return -size * torch.rand(_SHAPE, generator=generator)

    logprobs = draw().requires_grad_()
    mask = torch.ones(_SHAPE, dtype=torch.bool)
    mask[-1, 2:] = False
    with torch.enable_grad():
        output = loss(
            LossInputs(
                logprobs=logprobs,
                mask=mask,
                advantages=torch.zeros(_SHAPE[0], 1),
                **{name: draw() for name in sorted(given)},
            )
        )
        if not bool((output.per_token == 0).all()):
            return False
        if not output.per_token.requires_grad:
            return True
        (grad,) = torch.autograd.grad(
            output.per_token.sum(), logprobs, allow_unused=True, materialize_grads=True
        )
    return not bool(grad.any())
