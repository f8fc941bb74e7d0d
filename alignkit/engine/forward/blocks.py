"""Segments of packed rows that attend in one call: the positions of their queries and keys.

Shapes: b = segments of a block, T = tokens of its longest segment, P = tokens of its longest prompt
before a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from alignkit.engine.forward.varlen import Layout, Span
from alignkit.engine.tokens import onto


@dataclass(eq=False)
class Block:
    """Segments that attend in one call.

    The indices for torch's usual attention are computed at their first use, so never where the
    variable-length kernel is used.
    """

    spans: Sequence[Span]
    """The segments, in the order of their tokens."""
    device: torch.device | str
    """Device of the packed sequence."""
    layout: Layout | None = None
    """In the first block only: the layout of all blocks for the variable-length kernel, set at its
    first use."""
    _bias: Tensor | None = None

    @property
    def queries(self) -> Tensor:
        """(b, T) int64 index of each token in the sequence; 0 at padding."""
        return self._usual[0]

    @property
    def keys(self) -> Tensor:
        """(b, P + T) int64 index of each token attended to; 0 at padding."""
        return self._usual[1]

    @property
    def outputs(self) -> Tensor:
        """(tokens,) int64 index of each of the block's tokens in the flattened (b, T)."""
        return self._usual[2]

    @property
    def allowed(self) -> Tensor | None:
        """(b, 1, T, P + T) bool; None if the plain causal mask is enough."""
        return self._usual[3]

    @cached_property
    def _usual(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        first, size, begin, length = torch.tensor(self.spans).T[:, :, None]  # (b, 1) each
        token = torch.arange(int(size.max()))  # (T,)
        inside = token < size  # (b, T)
        queries = torch.where(inside, first + token, 0)  # (b, T)
        keys, allowed = queries, None
        if int(length.max()):
            before = torch.arange(int(length.max()))  # (P,)
            known = before < length  # (b, P)
            keys = torch.cat([torch.where(known, begin + before, 0), queries], 1)  # (b, P + T)
            causal = token <= token[:, None]  # (T, T)
            shape = (len(self.spans), len(token), -1)
            allowed = torch.cat([known[:, None].expand(shape), causal.expand(shape)], 2)
            allowed = onto(self.device, allowed[:, None])  # (b, 1, T, P + T)
        outputs = onto(self.device, inside.flatten().nonzero()[:, 0])
        return onto(self.device, queries), onto(self.device, keys), outputs, allowed

    def bias(self, like: Tensor) -> Tensor | None:
        """Return 0 where attention is allowed and -inf elsewhere, in the dtype of ``like``."""
        if self.allowed is not None and (self._bias is None or self._bias.dtype != like.dtype):
            zeros = torch.zeros(self.allowed.shape, dtype=like.dtype, device=like.device)
            self._bias = zeros.masked_fill_(~self.allowed, -torch.inf)
        return self._bias
