"""Decoding with each prompt's keys and values held once for all its responses.

A new token's scores with its prompt and with its own response are computed apart, normalised by
one softmax, and weight the values of both: that is attention to the whole row. The prompt part is
one matrix product per prompt for all its responses, so a prompt is read from memory once per step
instead of once per response, as in Hydragen (arXiv:2402.05099, section 3.1). The scores of the
two parts lie side by side here, so nothing needs to be put together by normalisers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignkit_hf.fast.attention import hiding
from alignkit_hf.fast.cache import Cursor, Layer, Plan, Prompt, PromptKV, RowCache


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
    prompt_mask: Tensor
    """(B, longest prompt) bool, True past the end of each row's prompt."""
    prompt_bias: Tensor | None
    """(B, 1, 1, longest prompt), -inf where the mask is True; None if it is nowhere."""
    longest_prompt: int

    def to_table(self, rows: Tensor, prompts: int) -> Tensor:
        """Bring (B, K, share, X) into (prompts, K, width * share, X)."""
        _, kv_heads, share, size = rows.shape
        placed = rows if self.row_at is None else rows[self.row_at]
        table = placed.view(prompts, self.width, kv_heads, share, size).transpose(1, 2)
        return table.reshape(prompts, kv_heads, self.width * share, size)

    def to_rows(self, table: Tensor, share: int) -> Tensor:
        """Undo :meth:`to_table`; rows that are in order come as a view, (prompts, width, ...)."""
        prompts, kv_heads, _, size = table.shape
        table = table.view(prompts, kv_heads, self.width, share, size).transpose(1, 2)
        if self.row_at is None:
            return table
        return table.reshape(prompts * self.width, kv_heads, share, size)[self.place_of]

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
        past = torch.arange(longest, device=slots.device) >= lengths[slots][:, None]
        bias = hiding(past) if bool(past.any()) else None
        return cls(
            width=width,
            row_at=None if in_order else row_at,
            place_of=place,
            prompt_mask=past,
            prompt_bias=bias,
            longest_prompt=longest,
        )


class SharedCache(RowCache):
    """Rows that hold responses only; prompts 0 .. held - 1 are those still needed."""

    layer_type = SharedLayer
    attends = True
    held: list[SharedLayer]  # type: ignore[assignment]
    current: SharedLayer

    def __init__(self, plan: Plan, like: PromptKV) -> None:
        super().__init__(plan, like)
        device = like[0][0].device
        self.slots = torch.zeros(plan.rows, dtype=torch.long, device=device)
        self.lengths = torch.zeros(plan.prompts, dtype=torch.long, device=device)
        self.prompts: list[Prompt] = []
        self.capacity = plan.prompts
        self.seating: Seating | None = None

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

    def places(self, positions: Tensor, drawn: Tensor) -> Tensor:
        """Return the index within its row: that of a response's first token is 0."""
        return drawn - 1

    def _hidden(self) -> Tensor | None:
        """Return the bias of the next pass, a row's prompt before the row itself."""
        running = len(self.cursor.rows)
        if self.seating is None or len(self.seating.place_of) != running:
            self.seating = Seating.of(self.slots[:running], self.lengths[: len(self.prompts)])
        if self.cursor.same:
            return self.seating.prompt_bias
        return hiding(torch.cat([self.seating.prompt_mask, self.cursor.beyond()], 1))

    def attention(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from each row's new token to its prompt and its response.

        See :class:`alignkit_hf.fast.attention.Attends`.
        """
        assert self.seating is not None
        rows, heads, size = query.shape
        kv_heads, count = keys.shape[1], len(self.prompts)
        share, longest = heads // kv_heads, self.seating.longest_prompt
        query = query.view(rows, kv_heads, share, size).to(keys.dtype)
        prompt_keys = self.current.prompt_keys[:count, :, :longest]
        table = self.seating.to_table(query, count) @ prompt_keys.transpose(-1, -2)
        weights = self._weights(
            self.seating.to_rows(table, share), query @ keys.transpose(-1, -2)
        ).to(values.dtype)
        table = self.seating.to_table(weights[..., :longest], count)
        table = table @ self.current.prompt_values[:count, :, :longest]
        of_prompt = self.seating.to_rows(table, share)
        of_own = (weights[..., longest:] @ values).view(of_prompt.shape)
        return of_own.add_(of_prompt).view(rows, heads, size)

    def _weights(self, of_prompt: Tensor, of_own: Tensor) -> Tensor:
        """Return the weights for both parts' scores, (B, K, share, longest prompt + longest)."""
        parts = [of_prompt, of_own.view(*of_prompt.shape[:-1], -1)]
        scores = torch.cat(parts, -1).view(*of_own.shape[:-1], -1).float()
        if self.bias is not None:
            scores[..., : self.bias.shape[-1]].add_(self.bias)
        return scores.softmax(-1)
