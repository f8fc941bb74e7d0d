"""torch's variable-length attention kernel by its formula, with its refusals.

Shapes: N = queries, M = keys, h = heads, g = key-value heads, d = head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def forward(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for ``torch_attn._varlen_attn``: (N, h, d), and two tensors nobody reads here."""
    q, k, v, starts, key_starts, _, _, causal, scale = given[:9]
    _refuse(q, k, v, starts, key_starts)
    out = torch.zeros(q.shape)
    for at, _, values, weights in _sequences(q, k, v, starts, key_starts, causal, scale):
        out[at] = torch.einsum("hnm,mhd->nhd", weights, values)
    return out.to(q.dtype), torch.zeros(q.shape[1], q.shape[0]), torch.zeros(2)


def backward(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for its backward pass: gradients of queries, keys and values."""
    grad, q, k, v, _, _, starts, key_starts, _, _, causal, _, scale = given[:13]
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    dq, dk, dv = (torch.zeros(x.shape) for x in (q, k, v))
    keys_of = dict(_spans(starts, key_starts))
    for at, keys, values, weights in _sequences(q, k, v, starts, key_starts, causal, scale):
        g = grad[at].float()
        to_weights = torch.einsum("nhd,mhd->hnm", g, values)
        inner = (to_weights * weights).sum(-1, keepdim=True)
        to_scores = weights * (to_weights - inner) * factor
        dq[at] = torch.einsum("hnm,mhd->nhd", to_scores, keys)
        there = keys_of[at.start, at.stop]
        dk[there] += _grouped(torch.einsum("hnm,nhd->mhd", to_scores, q[at].float()), k)
        dv[there] += _grouped(torch.einsum("hnm,nhd->mhd", weights, g), v)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _refuse(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, key_starts: Tensor) -> None:
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    if {starts.dtype, key_starts.dtype} != {torch.int32}:
        raise RuntimeError("cu_seqlens must have dtype int32")
    if any(x.stride(-1) != 1 for x in (q, k, v)):
        raise RuntimeError("Input tensor must have contiguous last dimension")


def _spans(starts: Tensor, key_starts: Tensor) -> Iterator[tuple[tuple[int, int], slice]]:
    edges, key_edges = starts.tolist(), key_starts.tolist()
    for i in range(len(edges) - 1):
        yield (edges[i], edges[i + 1]), slice(key_edges[i], key_edges[i + 1])


def _sequences(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, key_starts: Tensor, causal: bool, scale: Any
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Yield where queries are, their keys and values (m, h, d), and the weights (h, n, m)."""
    share = q.shape[1] // k.shape[1]
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    for (first, last), there in _spans(starts, key_starts):
        at = slice(first, last)
        keys, values = (x[there].float().repeat_interleave(share, 1) for x in (k, v))
        scores = torch.einsum("nhd,mhd->hnm", q[at].float(), keys) * factor
        if causal:  # aligned at the last key
            n, m = scores.shape[1:]
            scores = scores.masked_fill(~torch.ones(n, m).bool().tril(m - n), -torch.inf)
        yield at, keys, values, scores.softmax(-1)


def _grouped(grads: Tensor, like: Tensor) -> Tensor:
    """Add up (m, h, d) over the heads that share a key: (m, g, d)."""
    return grads.unflatten(1, (like.shape[1], -1)).sum(2)
