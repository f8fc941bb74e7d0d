"""Attention of packed rows by one variable-length kernel, on CUDA in 16 bits.

Every segment is a sequence of its own: its queries are its tokens, its keys the shared prompt and
its own tokens. The kernel (torch's, FlashAttention inside; Dao 2023, arXiv:2307.08691) aligns the
causal mask at the last key, so each token sees the prompt and its own segment up to itself. There
is no padding and no mask in memory. A prompt's keys and values are copied for each response to it.

Only a model that was loaded with ``attention = "flash_attention_2"`` uses the kernel of the package
flash-attn instead, so that results do not depend on what is installed.

One trial, forwards and backwards, shows whether kernel and device compute this correctly.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignkit.engine.forward.trial import compute_dtype
from alignkit.engine.tokens import onto

Span = tuple[int, int, int, int]
"""A segment: its first token and its length, and those of the prompt before it (0, 0 if none)."""

TORCH, FLASH_ATTN = "torch", "flash-attn"
"""The libraries whose kernel can be used."""

OWNER: ContextVar[str] = ContextVar("whose kernel the model under way takes", default=TORCH)

ATTENDED: WeakKeyDictionary[nn.Module, dict[torch.dtype, str]] = WeakKeyDictionary()
"""How each layer attends to packed rows, by the type it computes in, and why not by the kernel."""

_HALF = (torch.bfloat16, torch.float16)
_LARGEST_HEAD = 256
_faults: dict[tuple[str, torch.device, torch.dtype, int, int, int], str] = {}
"""The fault that a trial found in a kernel, "" for none."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where sequences begin and end, for the kernel."""

    starts: Tensor
    """(segments + 1,) int32 offsets of the segments in the packed sequence, so in the queries."""
    longest: int
    key_starts: Tensor
    """(segments + 1,) int32 offsets of the segments in the keys."""
    longest_keys: int
    keys: Tensor | None
    """(keys,) int64 index of each key in the packed sequence; None if the keys are the sequence."""

    @classmethod
    def of(cls, spans: Sequence[Span], device: torch.device) -> Layout:
        """Lay out segments that follow each other without a gap."""
        own = [length for _, length, _, _ in spans]
        whole = [length + before for _, length, _, before in spans]
        keys = None
        if own != whole:
            places = [
                place
                for first, length, begin, before in spans
                for place in (*range(begin, begin + before), *range(first, first + length))
            ]
            keys = onto(device, torch.tensor(places))
        return cls(_sums(own, device), max(own), _sums(whole, device), max(whole), keys)


def _sums(lengths: Sequence[int], device: torch.device) -> Tensor:
    return onto(device, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32))


def usable(query: Tensor, key: Tensor) -> bool:
    """Whether the kernel supports such heads, each (1, heads, N, size), and computes them right."""
    return not unusable(query, key)


def unusable(query: Tensor, key: Tensor) -> str:
    """Return why the kernel is not :func:`usable`, "" if it is."""
    heads, size = query.shape[1], query.shape[-1]
    dtype = compute_dtype(query)
    if query.device.type != "cuda":
        return "it needs a CUDA device"
    if dtype not in _HALF:
        return f"it needs 16 bits, not {str(dtype).removeprefix('torch.')}"
    if size % 8 or size > _LARGEST_HEAD:
        return f"it takes no heads of {size} numbers"
    kind = (query.device, dtype, heads, key.shape[1], size)
    known = (OWNER.get(), *kind)
    if known not in _faults:
        _faults[known] = _fault(*kind)
    return _faults[known]


def note(layer: nn.Module, query: Tensor, key: Tensor, used: bool) -> None:
    """Record in ``ATTENDED`` which attention a layer uses, once for each type."""
    known, dtype = ATTENDED.setdefault(layer, {}), compute_dtype(query)
    if dtype not in known:
        name = f"{OWNER.get()}'s variable-length kernel"
        reason = "" if used else unusable(query, key) or "weights of it are dropped"
        known[dtype] = f"torch's usual kernels, not {name}: {reason}" if reason else name


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """Attend within each segment and its prompt: (1, heads, N, size) to (1, N, heads, size)."""
    dtype = compute_dtype(query)
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))  # (N, heads, size)
    if layout.keys is not None:
        k, v = k[layout.keys], v[layout.keys]
    call = flash_kernel if OWNER.get() == FLASH_ATTN else kernel
    return call(q, k, v, layout, scaling)[None]


def flash_kernel(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """Compute what :func:`kernel` does with the package flash-attn (2.1 or later)."""
    package: Any = import_module("flash_attn")
    found: Tensor = package.flash_attn_varlen_func(
        *_operands(q, k, v, layout),
        softmax_scale=scaling,
        causal=True,
    )
    return found


def kernel(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """Call torch's kernel: queries (N, heads, size), keys and values (keys, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn

    found: Tensor = cast(Any, varlen_attn)(
        *_operands(q, k, v, layout),
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return found


def _operands(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor | int, ...]:
    """Return the first arguments of both kernels: tensors, offsets of segments, longest lengths."""
    packed = (q.contiguous(), k.contiguous(), v.contiguous())
    return (*packed, layout.starts, layout.key_starts, layout.longest, layout.longest_keys)


_PROBE: tuple[Span, ...] = ((0, 3, 0, 0), (3, 2, 0, 3), (5, 4, 0, 3), (9, 5, 0, 0))
"""A prompt of 3, two responses to it, and a row on its own."""


def _fault(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> str:
    """Compare values and gradients with :func:`written_out`, to the rounding of ``dtype``.

    Return what is wrong, "" if nothing is.
    """
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, n, 14, size, generator=draw).to(device, dtype).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    )
    weights = torch.randn(1, 14, heads, size, generator=draw).to(device, dtype)
    try:
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            out = attend(q, k, v, Layout.of(_PROBE, device), None)
            got = [out, *torch.autograd.grad((out * weights).sum(), (q, k, v))]
            out = written_out(q, k, v, _PROBE)
            want = [out, *torch.autograd.grad((out * weights).sum(), (q, k, v))]
    except torch.OutOfMemoryError:
        raise
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:  # no such kernel here
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    apart = [
        float((a - b).detach().abs().max() / b.detach().abs().max())
        for a, b in zip(got, want, strict=True)
    ]
    worst = max(apart)
    return "" if worst < 0.05 else f"it differs from the formula by {worst:.2g}"


def written_out(query: Tensor, key: Tensor, value: Tensor, spans: Sequence[Span]) -> Tensor:
    """Compute :func:`attend` by the formula of attention, one segment at a time."""
    share = query.shape[1] // key.shape[1]
    key, value = (x[0].repeat_interleave(share, 0) for x in (key, value))
    parts = []
    for first, length, begin, before in spans:
        at = [*range(begin, begin + before), *range(first, first + length)]
        scores = query[0, :, first : first + length] @ key[:, at].transpose(1, 2)
        scores = scores.float() * query.shape[-1] ** -0.5  # (heads, length, before + length)
        seen = torch.ones(length, before + length, dtype=torch.bool, device=query.device)
        scores = scores.masked_fill(~seen.tril(before), -torch.inf)
        parts.append((scores.softmax(-1).to(value.dtype) @ value[:, at]).transpose(0, 1))
    return torch.cat(parts)[None]
