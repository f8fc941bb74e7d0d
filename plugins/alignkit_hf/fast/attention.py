"""The attention of decode steps as transformers calls it: the current cache does the work.

A model decodes one token per row. Its layers first hand their new keys and values to the cache,
then call the function registered here, which asks that cache to attend: caches know what each
row sees, so no mask is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from alignkit.engine.forward.attention import refuse_unknown

if TYPE_CHECKING:
    from torch import nn

NAME = "alignkit_decode"
"""What the attention function is called in transformers' registry."""


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Called with queries (B, heads, head size), scaled, and the keys and values of the layer that
stored its new tokens last, (B, key-value heads, longest, head size); returns what the queries see,
(B, heads, head size)."""

_ACTIVE: ContextVar[Attend] = ContextVar("how rows attend in the forward pass under way")


@contextmanager
def attending(attend: Attend) -> Iterator[None]:
    """Let :func:`attention` attend by ``attend``, a cache's, while the context lasts."""
    token = _ACTIVE.set(attend)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attend from one token per row to the keys of its row, each read once for all its heads.

    The library kernels that take a mask per row copy keys once per head, which at 256 rows
    costs more than all the rest of a step.

    Args:
        query: (B, heads, head size), scaled.
        keys: (B, key-value heads, longest, head size), as are ``values``.
        bias: (B, 1, 1, longest) float32 added to the scores; None where all keys are seen.

    Returns:
        (B, heads, head size).
    """
    rows, heads, size = query.shape
    kv_heads = keys.shape[1]
    query = query.reshape(rows, kv_heads, heads // kv_heads, size).to(keys.dtype)
    scores = (query @ keys.transpose(-1, -2)).float()  # (B, kv heads, heads / kv heads, longest)
    if bias is not None:
        scores += bias
    return (scores.softmax(-1).to(values.dtype) @ values).view(rows, heads, size)


def hiding(past: Tensor) -> Tensor:
    """Return a bias of scores, (B, 1, 1, X), that hides where ``past`` (B, X) is True."""
    return torch.zeros(past.shape, device=past.device).masked_fill_(past, -torch.inf)[:, None, None]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from each row's new token, as the current cache does.

    Args:
        module: the attention layer; not used.
        query: (B, heads, 1, head size).
        key: (B, key-value heads, longest, head size), as is ``value``.
        attention_mask: not used; the cache knows.
        scaling: factor of the scores; None is 1 / sqrt(head size).
        **kwargs: what the model passes besides.

    Returns:
        (B, 1, heads, head size), and None for the weights.

    Raises:
        UnsupportedAttentionError: the model wants capped scores, sinks or a position bias.
    """
    refuse_unknown(kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _ACTIVE.get()(query[:, :, 0] * scale, key, value)[:, None], None


AttentionInterface.register(NAME, attention)
