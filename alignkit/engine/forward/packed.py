"""Pack rows into one, without padding; a prompt that several rows share is computed once.

A micro-batch becomes one sequence of segments: shared prompts, the responses that follow them, and
whole rows that share no prompt. Everything computed token by token (the linear layers, most of a
model's work) runs on that sequence. Only attention looks at segments: each token sees its own
segment up to itself and, in a response, all of the prompt before it. Positions restart with each
row, so every token sees exactly what it would see in a row of its own, and a prompt's gradient is
the sum over its responses.

Attention runs on blocks of segments of similar length. One dense mask over the whole sequence would
be simpler, but its memory grows with the square of the length. On CUDA in 16 bits one
variable-length kernel takes all segments; see ``varlen``.

Shapes: N = tokens of the sequence, B = rows, b = segments of a block, T = tokens of its longest
segment, D = head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignkit.engine.forward import varlen
from alignkit.engine.forward.attention import refuse_unknown
from alignkit.engine.forward.blocks import Block
from alignkit.engine.forward.compiled_head import ACTIVE
from alignkit.engine.tokens import TrainRow, onto

NAME = "alignkit_packed"
"""Name of the attention function in transformers' registry."""

_SIMILAR = 0.5
"""A block's segments are at least this share of its longest one."""

_ACTIVE: ContextVar[Sequence[Block]] = ContextVar("the blocks of the forward pass under way")


# ---------------------------------------------------------------- laying out


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Consecutive tokens of one row, or a prompt that several rows share."""

    ids: tuple[int, ...]
    prefix: _Segment | None = None
    """The shared prompt these tokens follow."""

    @property
    def offset(self) -> int:
        """Position of the first token in its row."""
        return len(self.prefix.ids) if self.prefix else 0


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Rows laid out as one sequence."""

    input_ids: Tensor
    """(1, N) int64."""
    position_ids: Tensor
    """(1, N) int64, restarting with each row."""
    blocks: Sequence[Block]
    positions: Tensor
    """(trained tokens,) int64 index in ``input_ids`` that predicts each of them, row by row."""

    @classmethod
    def of(cls, rows: Sequence[TrainRow], device: torch.device | str = "cpu") -> Packed:
        """Lay out ``rows``; those without a trained token are left out."""
        rows = [row for row in rows if row.trained_ids]
        prompts, own = _segments(rows)
        blocks: list[list[_Segment]] = []
        for kind in ([s for s in own if s.prefix is None] + prompts, [s for s in own if s.prefix]):
            blocks += _similar(kind)
        start: dict[int, int] = {}
        ids: list[int] = []
        where: list[int] = []
        for segment in (s for block in blocks for s in block):
            start[id(segment)] = len(ids)
            ids += segment.ids
            where += range(segment.offset, segment.offset + len(segment.ids))
        predicts: list[int] = []
        for row, segment in zip(rows, own, strict=True):
            first = start[id(segment)] if segment.ids else 0
            if segment.prefix is None:
                begin = first + len(row.prompt_ids) - 1
                places = [*range(begin, begin + len(row.response_ids))]
            else:
                last = start[id(segment.prefix)] + segment.offset - 1
                places = [last, *range(first, first + len(segment.ids))]
            predicts += row.trained_of(places)
        return cls(
            onto(device, torch.tensor([ids])),
            onto(device, torch.tensor([where])),
            [Block([_span(s, start) for s in block], device) for block in blocks],
            onto(device, torch.tensor(predicts)),
        )


def _segments(rows: Sequence[TrainRow]) -> tuple[list[_Segment], list[_Segment]]:
    """Return the prompts that several rows share, and one segment per row, in their order.

    The last response token is no input: nothing is predicted from it.
    """
    count: dict[tuple[int, ...], int] = {}
    for row in rows:
        count[row.prompt_ids] = count.get(row.prompt_ids, 0) + 1
    prompts = {ids: _Segment(ids) for ids, rows_with_it in count.items() if rows_with_it > 1}
    own = []
    for row in rows:
        prefix, tail = prompts.get(row.prompt_ids), row.response_ids[:-1]
        own.append(_Segment(tail if prefix else (*row.prompt_ids, *tail), prefix))
    return list(prompts.values()), own


def _similar(segments: Sequence[_Segment]) -> list[list[_Segment]]:
    """Cut segments into blocks of similar length, the longest first; empty ones are left out."""
    blocks: list[list[_Segment]] = []
    for segment in sorted((s for s in segments if s.ids), key=lambda s: -len(s.ids)):
        if blocks and len(segment.ids) >= _SIMILAR * len(blocks[-1][0].ids):
            blocks[-1].append(segment)
        else:
            blocks.append([segment])
    return blocks


def _span(segment: _Segment, start: dict[int, int]) -> varlen.Span:
    prefix = segment.prefix
    begin = start[id(prefix)] if prefix else 0
    return start[id(segment)], len(segment.ids), begin, segment.offset


def shared_batches(
    rows: Sequence[TrainRow], token_budget: int, whole_budget: int = 0
) -> list[list[int]]:
    """Cut rows into micro-batches of at most ``token_budget`` tokens, shared prompts counted once.

    Rows with one prompt stay together unless they fill a micro-batch by themselves. Those that
    exceed ``token_budget`` get up to ``whole_budget`` tokens, if that is more: apart, they would
    compute their prompt once for each part. Every index is in exactly one batch; a row longer than
    the budget goes alone. Longest first.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda i: -rows[i].length):
        groups.setdefault(rows[index].prompt_ids, []).append(index)
    batches: list[list[int]] = []
    room = 0
    for prompt, members in groups.items():
        whole = len(prompt) + sum(len(rows[i].response_ids) for i in members)
        budget = min(max(token_budget, whole), max(token_budget, whole_budget))
        if whole > room:  # open a new batch, unless a large group continues here
            batches.append([])
            room = budget
        room -= len(prompt)
        for index in members:
            tokens = len(rows[index].response_ids)
            if batches[-1] and tokens > room:
                batches.append([])
                room = budget - len(prompt)
            batches[-1].append(index)
            room -= tokens
    return batches


# ---------------------------------------------------------------- attending


def active_blocks() -> Sequence[Block] | None:
    """Return the blocks of the packed forward pass in progress, None if there is none."""
    return _ACTIVE.get(None)


@contextmanager
def attending(model: nn.Module, blocks: Sequence[Block]) -> Iterator[None]:
    """Make ``model`` attend within ``blocks`` while the context lasts."""
    config: Any = model.config
    previous = config._attn_implementation
    token = _ACTIVE.set(blocks)
    flash = previous == "flash_attention_2"
    owner = varlen.OWNER.set(varlen.FLASH_ATTN if flash else varlen.TORCH)
    config._attn_implementation = _registered()
    try:
        yield
    finally:
        config._attn_implementation = previous
        varlen.OWNER.reset(owner)
        _ACTIVE.reset(token)


def _registered() -> str:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _apart() if ACTIVE.get() else attention)
    return NAME


@cache
def _apart() -> Callable[..., Any]:
    """Return the attention for compiled layers, which are compiled in two parts around it."""
    disable: Any = torch.compiler.disable
    found: Callable[..., Any] = disable(attention)
    return found


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within the active blocks.

    Args:
        module: the attention layer; the attention it uses is recorded.
        query: (1, heads, N, D).
        key: (1, key-value heads, N, D), as is ``value``.
        attention_mask: not used; the blocks define the mask.
        scaling: factor of the scores; None is 1 / sqrt(D).
        dropout: share of attention weights to drop.
        **kwargs: further arguments of the model.

    Returns:
        (1, N, heads, D), and None for the weights.

    Raises:
        UnsupportedAttentionError: the model wants capped scores, sinks, a position bias or a
            sliding window.
    """
    refuse_unknown(kwargs, "sliding_window")
    blocks = _ACTIVE.get()
    by_kernel = not dropout and varlen.usable(query, key)
    varlen.note(module, query, key, by_kernel)
    if by_kernel:
        if blocks[0].layout is None:
            spans = [span for block in blocks for span in block.spans]
            blocks[0].layout = varlen.Layout.of(spans, query.device)
        return varlen.attend(query, key, value, blocks[0].layout, scaling), None
    parts = []
    for block in blocks:
        bias = block.bias(query)
        out = F.scaled_dot_product_attention(
            _gather(query, block.queries),
            _repeated(_gather(key, block.keys), query.shape[1]),
            _repeated(_gather(value, block.keys), query.shape[1]),
            attn_mask=bias,
            dropout_p=dropout,
            is_causal=bias is None,
            scale=scaling,
        )  # (b, heads, T, D)
        flat = out.transpose(1, 2).flatten(2).flatten(0, 1)  # (b * T, heads * D)
        parts.append(F.embedding(block.outputs, flat))
    packed = torch.cat(parts)  # (N, heads * D)
    return packed.view(1, len(packed), query.shape[1], -1), None


def _gather(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick (b, L) tokens of (1, heads, N, D) as (b, heads, L, D).

    Implemented as an embedding, the gather with a fast backward pass, on CPU too.
    """
    _, heads, count, size = tokens.shape
    table = tokens.transpose(1, 2).reshape(count, heads * size)
    return F.embedding(index, table).view(*index.shape, heads, size).transpose(1, 2)


def _repeated(tokens: Tensor, heads: int) -> Tensor:
    """Repeat (b, key-value heads, L, D) to as many ``heads`` as the queries have."""
    repeats = heads // tokens.shape[1]
    return tokens if repeats == 1 else tokens.repeat_interleave(repeats, dim=1)
