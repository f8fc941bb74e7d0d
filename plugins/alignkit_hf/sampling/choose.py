"""From logits and a uniform draw to a token and its log-probability."""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.protocols import Sampling
from alignkit_hf.sampling.rng import uniforms

_CHUNK = {"cpu": 2**22, "cuda": 2**28}
"""Rows x vocabulary handled at once: on a CPU so that the passes over it stay in cache, on CUDA
so that they stay few and their memory bounded."""


def draw(
    logits: Tensor, streams: Tensor, drawn: Tensor, how: Sampling, eos: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw the next token of each response.

    Args:
        logits: (B, V) of any floating dtype.
        streams: (B,) int64, the stream that each response's random draws come from.
        drawn: (B,) int64 tokens it has so far; below ``how.min_tokens`` it must not end.
        how: temperature, top_k, top_p, min_p and min_tokens.
        eos: (E,) int64 ids that end a response.

    Returns:
        See :func:`choose`.
    """
    logits = logits.float()
    if how.min_tokens and len(eos):
        early = (drawn < how.min_tokens)[:, None]  # (B, 1)
        no_end = logits[:, eos].masked_fill(early, -torch.inf)  # (B, E)
        logits = logits.index_copy(1, eos, no_end)
    return choose(logits, uniforms(streams, drawn), how)


def choose(logits: Tensor, uniform: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits: (B, V) of any floating dtype.
        uniform: (B,) float64 in [0, 1), one random number per row.
        how: temperature, top_k, top_p and min_p, applied in this order.

    Returns:
        (B,) int64 tokens and (B,) float32 natural log-probabilities under the distribution they
        were drawn from. At temperature 0 the most probable token is taken and the
        log-probability is the model's own, that is at temperature 1. It is NaN where a row of
        logits is not finite, and the token then means nothing.
    """
    rows = max(1, _CHUNK.get(logits.device.type, _CHUNK["cpu"]) // logits.shape[1])
    parts = [
        _greedy(chunk) if how.temperature == 0 else _draw(chunk, u, how)
        for chunk, u in zip(
            torch.split(logits.float(), rows), torch.split(uniform, rows), strict=True
        )
    ]
    tokens, logprobs = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(logprobs)


def _greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    best, tokens = logits.max(dim=-1)
    return tokens, best - logits.logsumexp(dim=-1)


def _draw(logits: Tensor, uniform: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    if how.temperature != 1:
        logits = logits / how.temperature
    weights = kept(logits.softmax(dim=-1), how)
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Strictly below the total, so that the first cumulative weight above the target exists and
    # belongs to a token of positive weight.
    target = (uniform[:, None] * total).to(total.dtype)
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    # Where a logit is not a number nothing is above the target; the log-probability shows it.
    tokens = torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[1] - 1)
    chosen = weights.gather(1, tokens)
    return tokens[:, 0], (chosen / total).log()[:, 0]


def kept(probs: Tensor, how: Sampling) -> Tensor:
    """Return ``probs`` (B, V) with the tokens that top_k, top_p and min_p exclude set to 0."""
    if 0 < how.top_k < probs.shape[1]:
        values, tokens = probs.topk(how.top_k, dim=-1)
        probs = torch.zeros_like(probs).scatter_(1, tokens, values)
    if how.top_p < 1:
        values, tokens = probs.sort(dim=-1, descending=True, stable=True)
        before = values.cumsum(dim=-1) - values
        inside = before < how.top_p * values.sum(dim=-1, keepdim=True)
        probs = torch.zeros_like(probs).scatter_(1, tokens, values * inside)
    if how.min_p > 0:
        probs = probs * (probs >= how.min_p * probs.amax(dim=-1, keepdim=True))
    return probs
