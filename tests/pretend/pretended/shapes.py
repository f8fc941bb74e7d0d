"""Shape mode: floats on the device have a shape and a size in memory, but no values.

A model of full size runs through a step in seconds: what it holds at its peak and how many bytes
each operation moves are known, what it computes is not. Integers are real, as shapes depend on
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten

_on = False


def active() -> bool:
    """Whether floats that are made on the device now have no values."""
    return _on


@contextmanager
def shapes_only() -> Iterator[None]:
    """Make floats on the device without values while the block runs."""
    global _on
    real, before = F.scaled_dot_product_attention, _on
    _on, F.scaled_dot_product_attention = True, _attended(real)
    try:
        yield
    finally:
        _on, F.scaled_dot_product_attention = before, real


def hollow(x: Any) -> Any:
    """Return a float tensor without its values; anything else as it is."""
    if isinstance(x, Tensor) and x.dtype.is_floating_point and not x.is_meta:
        return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="meta")
    return x


def shape_of(x: Any) -> Any:
    """Return a tensor without its values, to meet one that has none; scalars stay as they are."""
    if isinstance(x, Tensor) and not x.is_meta and x.dim():
        return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="meta")
    return x


def on_host(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return what a copy to the host is taken to be: zeros."""
    return torch.zeros(x.shape, dtype=dtype or x.dtype)


def number(x: Tensor) -> Any:
    """Return what the only value of ``x`` is taken to be."""
    return True if x.dtype == torch.bool else 1.0 if x.dtype.is_floating_point else 1


def computed(func: Any, args: Any, kwargs: dict[str, Any], maps: Callable[..., Any]) -> Any:
    """Compute shapes; ``maps`` changes each tensor of arguments."""
    if func in _KNOWN:
        return _KNOWN[func](*args, **kwargs)
    return func(*maps(shape_of, args), **maps(shape_of, kwargs))


def _index(x: Tensor, indices: Any) -> Tensor:
    """Index by positions; a mask has as many as it has values, which are real."""
    found: list[Any] = []
    for index in indices:
        real = isinstance(index, Tensor) and index.dtype == torch.bool and not index.is_meta
        found += map(shape_of, index.nonzero(as_tuple=True)) if real else [shape_of(index)]
    return aten.index.Tensor(shape_of(x), found)


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    count = int(torch.broadcast_to(mask, x.shape).sum())
    return torch.empty(count, dtype=x.dtype, device="meta")


def _varlen(q: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    sums = torch.empty(q.shape[1], q.shape[0], device="meta")
    return torch.empty_like(q), sums, torch.empty(2, device="meta")


def _varlen_backward(_: Tensor, q: Tensor, k: Tensor, v: Tensor, *__: Any, **___: Any) -> Any:
    return tuple(map(torch.empty_like, (q, k, v)))


_KNOWN: dict[Any, Callable[..., Any]] = {
    aten.index.Tensor: _index,
    aten.masked_select.default: _masked_select,
    aten.equal.default: lambda *_: True,
    aten.any.default: lambda *_: torch.tensor(True),
    aten.all.default: lambda *_: torch.tensor(True),
    aten._fused_adamw_.default: lambda *_, **__: None,
}
"""Operations whose shapes depend on values, or that have no formula without them."""


def _set_kernels() -> None:
    from torch.nn.attention import varlen as _  # noqa: F401 - it registers the operations

    ops = torch.ops.torch_attn
    _KNOWN[ops._varlen_attn.default] = _varlen
    _KNOWN[ops._varlen_attn_backward.default] = _varlen_backward


_set_kernels()


class _Flash(torch.autograd.Function):
    """What FlashAttention keeps: its inputs, its output and a sum for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], device=q.device))
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def _attended(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Attend by FlashAttention where a CUDA device would: in 16 bits and without a mask."""

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *a: Any, **b: Any) -> Tensor:
        cast = torch.is_autocast_enabled("cuda")
        dtype = torch.get_autocast_dtype("cuda") if cast else q.dtype
        if attn_mask is None and dtype != torch.float32:
            return _Flash.apply(*(x.to(dtype) for x in (q, k, v)))
        return real(q, k, v, attn_mask, *a, **b)

    return attend
