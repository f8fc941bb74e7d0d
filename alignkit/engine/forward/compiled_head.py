"""The output head with compiled sums: each tile is read once, and written once as bfloat16.

As in ``head`` logits are computed a tile at a time and never kept. One kernel follows each matrix
product: in the forward pass it reduces logits to three numbers a row, in the backward pass it turns
logits into their gradient, in the type that both further products take. Products with the gradient
are added up in float32, without being rounded first.

Shapes: N = rows, n = rows of a tile, H = hidden size, V = vocabulary. Natural logarithms;
entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignkit.footprint import TILE

ACTIVE: ContextVar[bool] = ContextVar("whether layers and head run compiled now", default=False)

OPTIONS: dict[str, Any] = {"deterministic": True}
"""Options of the compiler. It must not choose kernels by timing them: the choice, and so a resumed
run's numbers, could differ."""

_LEAST_ROWS = 128
"""Fewest rows of a tile, since each tile reads the whole weight matrix."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The two functions below, which follow matrix products, compiled or as they are."""

    sums: Callable[..., tuple[Tensor, Tensor, Tensor]]
    delta: Callable[..., Tensor]


def sums(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probs of ``targets`` (n,), log Z and the entropy of each row, (n,) each.

    ``logits`` (n, V) are divided by ``temperature``, except for the entropy, which is the model's
    own.
    """
    most = logits.amax(-1, keepdim=True)
    below = logits - most
    powers = below.exp()
    total = powers.sum(-1)
    entropy = total.log() - (powers * below).sum(-1) / total
    scaled = (below / temperature).exp().sum(-1) if temperature != 1.0 else total
    log_z = most[:, 0] / temperature + scaled.log()
    chosen = logits.gather(-1, targets[:, None])[:, 0] / temperature
    return chosen - log_z, log_z, entropy


def delta(
    logits: Tensor,
    log_z: Tensor,
    targets: Tensor,
    grad: Tensor,
    temperature: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return d loss / d logits (n, V) in ``dtype``, given ``grad`` = d loss / d log-prob (n,).

    d logp / d logits = (onehot(target) - softmax(logits / temperature)) / temperature.
    """
    p = (logits / temperature - log_z[:, None]).exp()
    places = torch.arange(logits.shape[1], device=logits.device)
    hit = places == targets[:, None]
    return ((hit.to(p.dtype) - p) * (grad / temperature)[:, None]).to(dtype)


@cache
def compiled() -> Kernels:
    """Return both functions; each is compiled at its first call."""
    return Kernels(
        torch.compile(sums, dynamic=True, options=OPTIONS),
        torch.compile(delta, dynamic=True, options=OPTIONS),
    )


def kernels() -> Kernels | None:
    """Return the compiled functions where layers run compiled, else None."""
    return compiled() if ACTIVE.get() else None


class CompiledLogprobs(torch.autograd.Function):
    """Log-softmax of a linear map without bias at one index per row; see ``linear_logprobs``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        compute: torch.dtype,
        kernels: Kernels,
    ) -> tuple[Tensor, Tensor]:
        cast = weight.to(compute)
        parts = [
            kernels.sums(_product(hidden[at].to(compute), cast.T), targets[at], temperature)
            for at in _parts(hidden, weight)
        ]
        logprobs, log_z, entropy = (torch.cat(values) for values in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, targets, log_z)
        ctx.temperature, ctx.compute, ctx.kernels = temperature, compute, kernels
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        hidden, weight, targets, log_z = ctx.saved_tensors
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        wide = torch.promote_types(weight.dtype, torch.float32)  # tiles add up without rounding
        grad_weight = torch.zeros_like(weight, dtype=wide) if want_weight else None
        cast = weight.to(ctx.compute)
        for at in _parts(hidden, weight):
            rows = hidden[at].to(ctx.compute)
            pushed = ctx.kernels.delta(
                _product(rows, cast.T),
                log_z[at],
                targets[at],
                grad[at],
                ctx.temperature,
                ctx.compute,
            )
            if grad_hidden is not None:
                grad_hidden[at] = _product(pushed, cast).to(hidden.dtype)
            if grad_weight is not None:
                add_product(grad_weight, pushed.T, rows)
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _parts(hidden: Tensor, weight: Tensor) -> Iterator[slice]:
    """Cut the rows into tiles."""
    size = max(_LEAST_ROWS, TILE // 4 // len(weight))
    for first in range(0, max(len(hidden), 1), size):
        yield slice(first, first + size)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b in at least float32; on CUDA it is never rounded to 16 bits on the way."""
    wide = torch.promote_types(a.dtype, torch.float32)
    if a.device.type == "cuda" and a.dtype != wide:
        return torch.mm(a, b, out_dtype=wide)
    return (a @ b).to(wide)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to ``total`` in place; on CUDA 16-bit factors are multiplied into float32 sums."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.dtype == torch.float32 and _adds_wide(total.device, a.dtype):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b


@cache
def _adds_wide(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a CUDA device can add products of such matrices to a float32 matrix in place."""
    if device.type != "cuda":
        return False
    one = torch.ones(16, 16, dtype=dtype, device=device)
    total = torch.ones(16, 16, device=device)
    try:
        torch.addmm(total, one.T, one, out_dtype=total.dtype, out=total)
    except (RuntimeError, NotImplementedError):  # no such kernel in this torch
        return False
    return bool((total == 17).all())
