"""Decoding with each prompt's keys and values held once for all its responses.

A new token attends to its prompt and to its own response apart, and the two are put together
by their softmax normalisers, which is exact:

    out = (e^(a - m) A + e^(b - m) B) / (e^(a - m) za + e^(b - m) zb),    m = max(a, b)

with a, b the largest scores, A, B the weighted sums of values and za, zb the sums of weights of
the two parts, each relative to its own largest score. The prompt part is one matrix product per
prompt for all its responses, so a prompt is read from memory once per step instead of once per
response. The decomposition is that of Hydragen (arXiv:2402.05099, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import AttentionInterface

from alignkit_hf.cache import Cursor, Layer, Plan, Prompt, PromptKV, RowCache

if TYPE_CHECKING:
    from torch import nn

NAME = "alignkit_shared_prompt"
"""What the attention function is called in transformers' registry."""

_UNKNOWN = ("softcap", "s_aux", "position_bias")
_ACTIVE: ContextVar[SharedCache] = ContextVar("the cache of the forward pass under way")


class UnsupportedAttentionError(Exception):
    """The model asks its attention for something that is not implemented here."""


class SharedLayer(Layer):  # type: ignore[no-untyped-call]
    """One layer: responses in rows, prompts in slots."""

    def __init__(self, plan: Plan, like: Tensor, cursor: Cursor) -> None:
        super().__init__(plan, like, cursor)
        heads, _, size = like.shape
        self.prompt_keys = like.new_zeros(plan.prompts, heads, plan.prompt_tokens, size)
        self.prompt_values = torch.zeros_like(self.prompt_keys)


@dataclass(slots=True)
class Seating:
    """Which running row belongs to which prompt, as a table (prompts, width) of rows."""

    width: int
    """Rows of the prompt that has most."""
    row_at: Tensor | None
    """(prompts * width,) row at each place of the table, any row where it is empty; None if the
    table is 0 .. B - 1 as it stands."""
    place_of: Tensor
    """(B,) each row's place in the table."""
    prompt_mask: Tensor | None
    """(prompts, 1, 1, longest prompt) 0 or -inf; None if all prompts are equally long."""
    longest_prompt: int

    @classmethod
    def of(cls, slots: Tensor, lengths: Tensor) -> Seating:
        """Seat rows by ``slots`` (B,), their prompts; ``lengths`` (prompts,) are in tokens."""
        counts = torch.bincount(slots, minlength=len(lengths))
        width = int(counts.max())
        order = slots.argsort(stable=True)
        rank = (
            torch.arange(len(slots), device=slots.device)
            - (counts.cumsum(0) - counts)[slots[order]]
        )
        place = torch.empty_like(slots)
        place[order] = slots[order] * width + rank
        row_at = torch.zeros(len(lengths) * width, dtype=torch.long, device=slots.device)
        row_at[place] = torch.arange(len(slots), device=slots.device)
        straight = torch.arange(len(row_at), device=slots.device)
        in_order = len(row_at) == len(slots) and bool((row_at == straight).all())
        longest = int(lengths.max())
        past = torch.arange(longest, device=slots.device) >= lengths[:, None]
        mask = torch.zeros(past.shape, device=slots.device).masked_fill_(past, -torch.inf)
        return cls(
            width=width,
            row_at=None if in_order else row_at,
            place_of=place,
            prompt_mask=mask[:, None, None] if bool(past.any()) else None,
            longest_prompt=longest,
        )


class SharedCache(RowCache):
    """Rows that hold responses only; prompts 0 .. held - 1 are those still needed."""

    layer_type = SharedLayer
    held: list[SharedLayer]  # type: ignore[assignment]

    def __init__(self, plan: Plan, like: PromptKV) -> None:
        super().__init__(plan, like)
        device = like[0][0].device
        self.slots = torch.zeros(plan.rows, dtype=torch.long, device=device)
        self.lengths = torch.zeros(plan.prompts, dtype=torch.long, device=device)
        self.prompts: list[Prompt] = []
        self.capacity = plan.prompts
        self.current = self.held[0]
        self.seating: Seating | None = None
        self.mask: Tensor | None = None

    @classmethod
    def plan(cls, *, n: int, sizes: Sequence[tuple[int, int]], budget: int) -> Plan:
        """Return how many rows and prompts fit in ``budget`` tokens.

        Prompts whose last responses run long keep their slot, so there are up to four times as
        many slots as full groups would fill.
        """
        prompt_tokens = max(prompt for prompt, _ in sizes)
        row_tokens = max(response for _, response in sizes)

        def prompts(rows: int) -> int:
            return min(len(sizes), rows, 4 * -(-rows // n))

        def fits(rows: int) -> bool:
            return prompts(rows) * prompt_tokens + rows * row_tokens <= budget

        low, high = 1, n * len(sizes)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return Plan(low, row_tokens, prompts(low), prompt_tokens)

    def room(self) -> int:
        """Return how many more prompts can be held."""
        return self.capacity - len(self.prompts)

    def hold(self, kv: PromptKV) -> Prompt:
        """Copy a prompt into a free slot."""
        slot = len(self.prompts)
        tokens = kv[0][0].shape[1]
        for layer, (keys, values) in zip(self.held, kv, strict=True):
            layer.prompt_keys[slot, :, :tokens] = keys
            layer.prompt_values[slot, :, :tokens] = values
        self.lengths[slot] = tokens
        self.prompts.append(Prompt(None, slot))
        return self.prompts[slot]

    def seat(self, prompt: Prompt, rows: slice) -> None:
        """Let ``rows`` start from ``prompt``."""
        self.slots[rows] = prompt.slot
        self.seating = None

    def drop(self, prompt: Prompt) -> None:
        """Free the prompt's slot; the last prompt moves into it."""
        gap, last = prompt.slot, self.prompts.pop()
        if last is not prompt:
            for layer in self.held:
                layer.prompt_keys[gap] = layer.prompt_keys[last.slot]
                layer.prompt_values[gap] = layer.prompt_values[last.slot]
            self.lengths[gap] = self.lengths[last.slot]
            self.slots[self.slots == last.slot] = gap
            self.prompts[gap] = last
            last.slot = gap
        self.seating = None

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows ``source`` onto rows ``target``, which have finished."""
        super().move(source, target)
        self.slots[target] = self.slots[source]
        self.seating = None

    def point(self, positions: Tensor, drawn: Tensor, longest: int) -> Self:
        """Say where the next forward pass writes: a row's first token goes to index 0."""
        super().point(drawn - 1, drawn, longest)
        running = len(drawn)
        if self.seating is None or len(self.seating.place_of) != running:
            self.seating = Seating.of(self.slots[:running], self.lengths[: len(self.prompts)])
        past = torch.arange(longest, device=drawn.device) >= drawn[:, None]
        self.mask = torch.zeros(past.shape, device=drawn.device).masked_fill_(past, -torch.inf)
        return self

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the cache that :func:`attention` reads."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store one new token per running row and note the layer for the attention function."""
        self.current = self.held[layer_idx]
        return self.current.update(key_states, value_states)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from each row's new token to its prompt and its response.

    Args:
        module: the attention layer; not used.
        query: (B, heads, 1, head size).
        key: (B, key-value heads, longest response, head size), as is ``value``.
        attention_mask: not used; the active cache knows.
        scaling: factor of the scores; None is 1 / sqrt(head size).
        **kwargs: what the model passes besides.

    Returns:
        (B, 1, heads, head size), and None for the weights.

    Raises:
        UnsupportedAttentionError: the model wants capped scores, sinks or a position bias.
    """
    if any(kwargs.get(name) is not None for name in _UNKNOWN):
        raise UnsupportedAttentionError(
            str(sorted(k for k in _UNKNOWN if kwargs.get(k) is not None))
        )
    cache = _ACTIVE.get()
    rows, heads, _, size = query.shape
    query = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    query = (query * (size**-0.5 if scaling is None else scaling)).to(key.dtype)
    assert cache.mask is not None
    own = _part(query, key, value, cache.mask[:, None, None])
    prompt = _prompt_part(query, cache)
    top = torch.maximum(own.top, prompt.top)
    a, b = (own.top - top).exp_(), (prompt.top - top).exp_()
    total = own.total * a + prompt.total * b
    out = (own.values * (a / total)).add_(prompt.values * (b / total))
    return out.to(value.dtype).reshape(rows, 1, heads, size), None


@dataclass(slots=True)
class _Part:
    """Attention to some of the keys: not yet divided by ``total``."""

    values: Tensor
    """(..., head size) sum of e^(score - top) value."""
    total: Tensor
    """(..., 1) sum of e^(score - top)."""
    top: Tensor
    """(..., 1) largest score."""


def _part(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> _Part:
    scores = (query @ key.transpose(-1, -2)).float()
    if mask is not None:
        scores += mask
    top = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    return _Part((weights.to(value.dtype) @ value).float(), weights.sum(-1, keepdim=True), top)


def _prompt_part(query: Tensor, cache: SharedCache) -> _Part:
    """Attend from (B, key-value heads, heads per key-value head, head size) to the prompts."""
    seats, layer, prompts = cache.seating, cache.current, len(cache.prompts)
    assert seats is not None
    kv_heads, share, size = query.shape[1:]
    placed = query if seats.row_at is None else query[seats.row_at]
    placed = placed.view(prompts, seats.width, kv_heads, share, size).transpose(1, 2)
    part = _part(
        placed.reshape(prompts, kv_heads, seats.width * share, size),
        layer.prompt_keys[:prompts, :, : seats.longest_prompt],
        layer.prompt_values[:prompts, :, : seats.longest_prompt],
        seats.prompt_mask,
    )

    def by_row(table: Tensor) -> Tensor:
        table = table.view(prompts, kv_heads, seats.width, share, -1).transpose(1, 2)
        table = table.reshape(prompts * seats.width, kv_heads, share, -1)
        return table if seats.row_at is None else table[seats.place_of]

    return _Part(by_row(part.values), by_row(part.total), by_row(part.top))


AttentionInterface.register(NAME, attention)
