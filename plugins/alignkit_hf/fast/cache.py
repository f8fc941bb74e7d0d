"""The key-value cache of running responses: allocated once per call, never concatenated.

Running responses sit in rows 0 .. B - 1. :class:`RowCache` keeps each response's prompt in its own
row and serves any attention code; the cache of ``shared.py`` keeps a prompt once for all its
responses, that of ``static.py`` stays where it is from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from alignkit_hf.fast.attention import attend, hiding

PromptKV = list[tuple[Tensor, Tensor]]
"""Per layer, one prompt's keys and values, each (key-value heads, prompt tokens, head size)."""

_CLEAN_AHEAD = 31  # so that rows are zeroed 32 tokens at a time


@dataclass(slots=True)
class Plan:
    """Sizes of a cache."""

    rows: int
    """Responses that run at once."""
    row_tokens: int
    """Tokens a row can hold."""
    prompts: int = 0
    """Prompts held at once; 0 where rows hold their own."""
    prompt_tokens: int = 0
    """Tokens of the longest prompt."""


@dataclass(slots=True)
class Prompt:
    """A prompt that has been through the model, for as long as responses may need it."""

    kv: PromptKV | None
    slot: int = -1
    """Its place in a shared cache."""


@dataclass(slots=True)
class Cursor:
    """Where the next token of each running row goes; one for all layers."""

    rows: Tensor
    """(B,) 0 .. B - 1."""
    write: Tensor
    """(B,) index within the row."""
    longest: int = 0
    """Tokens in the longest row, the next one counted."""
    same: bool = False
    """Whether all rows are known to write at the same index, the last of the longest row."""

    def beyond(self) -> Tensor:
        """(B, longest) bool, True past each row's new token."""
        return torch.arange(self.longest, device=self.write.device) > self.write[:, None]


class Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values."""

    keys: Tensor
    values: Tensor

    def __init__(self, plan: Plan, like: Tensor, cursor: Cursor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        heads, _, size = like.shape
        self.both = like.new_empty(2, plan.rows, heads, plan.row_tokens, size)
        self.keys, self.values = self.both
        self.is_initialized = True
        self.cursor = cursor
        # Rows 0 .. clean_rows - 1 hold numbers up to token ``clean``; memory beyond may hold NaN.
        self.clean = self.clean_rows = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store one new token per running row; return views of all running rows.

        Args:
            key_states: (B, key-value heads, 1, head size).
            value_states: the same shape.

        Returns:
            (B, key-value heads, longest, head size) each; what lies past a row's own length is
            for the attention mask to hide.
        """
        return self.append(torch.stack([key_states[:, :, 0], value_states[:, :, 0]], 1))

    def append(self, new: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new token per running row; return what :meth:`update` does.

        Args:
            new: (B, 2 x key-value heads, head size), or (B, 2, key-value heads, head size), keys
                before values.
        """
        at = self.cursor
        self._clean(at.longest, len(new))
        new = new.view(len(new), 2, -1, new.shape[-1]).to(self.both.dtype)  # (B, 2, K, D)
        if at.same:
            self.both[:, : len(new), :, at.longest - 1] = new.transpose(0, 1)
        else:
            self.both[:, at.rows, :, at.write] = new
        keys, values = self.both[:, : len(new), :, : at.longest]
        return keys, values

    def _clean(self, tokens: int, rows: int) -> None:
        """Zero the first ``rows`` rows up to ``tokens``: a masked NaN stays NaN.

        Memory that no running response reaches stays untouched, so that the system need not
        provide it: of many responses, few run long. Rows from ``clean_rows`` on hold no response.
        """
        if rows > self.clean_rows:
            self.both[:, self.clean_rows : rows, :, : self.clean] = 0
            self.clean_rows = rows
        if tokens > self.clean:
            start, self.clean, self.clean_rows = self.clean, tokens + _CLEAN_AHEAD, rows
            self.both[:, :rows, :, start : self.clean] = 0

    def fill(self, rows: slice, keys: Tensor, values: Tensor) -> None:
        """Put the same tokens, (key-value heads, tokens, head size), at the start of ``rows``."""
        tokens = keys.shape[1]
        self._clean(tokens, rows.stop)
        self.keys[rows, :, :tokens] = keys
        self.values[rows, :, :tokens] = values

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows ``source`` onto rows ``target``."""
        self._clean(self.clean, max(source) + 1)
        self.both[:, target, :, : self.clean] = self.both[:, source, :, : self.clean]

    def get_seq_length(self) -> int:
        """Return tokens of the longest row before the one being added."""
        return self.cursor.longest - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return key length and offset. Required by the interface; our masks come ready-made."""
        return self.cursor.longest, 0

    def get_max_length(self) -> int:
        """Return the tokens a row can hold."""
        return int(self.keys.shape[2])

    get_max_cache_shape = get_max_length  # its name in earlier releases of transformers 5

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the constructor allocates."""


class RowCache(Cache):
    """Rows that hold their prompt and their response, one after the other."""

    layer_type: type[Layer] = Layer
    attends = False
    """Whether it attends in the model's own forward, too, or the model does, by a mask."""

    def __init__(self, plan: Plan, like: PromptKV) -> None:
        nowhere = torch.empty(0, dtype=torch.long, device=like[0][0].device)
        self.cursor = Cursor(nowhere, nowhere)
        kv = _held_type(like[0][0])
        self.held = [self.layer_type(plan, keys.to(kv), self.cursor) for keys, _ in like]
        self.current = self.held[0]
        """The layer that attends next."""
        self.bias: Tensor | None = None
        """(B, 1, 1, X), added to the first X of a row's scores; None hides nothing."""
        super().__init__(layers=list(self.held))

    @classmethod
    def plan(cls, *, n: int, sizes: Sequence[tuple[int, int]], budget: int) -> Plan:
        """Return how many rows fit in ``budget`` tokens.

        Args:
            n: responses per prompt.
            sizes: prompt tokens and largest number of response tokens, for each prompt.
            budget: tokens; one row is allowed to exceed it.
        """
        tokens = max(prompt + response for prompt, response in sizes)
        return Plan(rows=max(1, min(n * len(sizes), budget // tokens)), row_tokens=tokens)

    def room(self) -> int:
        """Return how many more prompts can be held."""
        return 2**31

    def hold(self, kv: PromptKV) -> Prompt:
        """Keep a prompt for the responses that will start from it."""
        return Prompt(kv)

    def seat(self, prompt: Prompt, rows: slice) -> None:
        """Let ``rows`` start from ``prompt``: they get a copy."""
        assert prompt.kv is not None
        for layer, (keys, values) in zip(self.held, prompt.kv, strict=True):
            layer.fill(rows, keys, values)

    def seated(self, prompt: Prompt) -> None:
        """Note that no more rows will start from ``prompt``."""
        prompt.kv = None

    def drop(self, prompt: Prompt) -> None:
        """Note that all rows that started from ``prompt`` have finished."""

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows ``source`` onto rows ``target``, which have finished."""
        for layer in self.held:
            layer.move(source, target)

    def places(self, positions: Tensor, drawn: Tensor) -> Tensor:
        """Return the index (B,) within its row that each row's new token goes to.

        Args:
            positions: (B,) those tokens' positions, counted from the start of the prompt.
            drawn: (B,) how many tokens the response has with them.
        """
        return positions

    def point(self, write: Tensor, longest: int) -> None:
        """Say that the next forward pass writes at index ``write`` (B,) of rows ``longest`` long.

        ``longest`` is one more than the largest of ``write``, or more if that is convenient.
        """
        at = self.cursor
        at.rows = torch.arange(len(write), device=write.device)
        at.write, at.longest = write, longest
        at.same = _level(write, longest)
        self.bias = self._hidden()

    def _hidden(self) -> Tensor | None:
        """Return the bias of the next pass."""
        return None if self.cursor.same else hiding(self.cursor.beyond())

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store one new token per running row; the layer's attention function comes next."""
        self.current = self.held[layer_idx]
        return self.current.update(key_states, value_states)

    def attend(self, layer: int, qkv: Tensor, heads: int) -> Tensor:
        """Store the new token of each row and attend to what the row sees by now.

        Args:
            layer: which.
            qkv: (B, heads + 2 x key-value heads, head size): scaled queries, keys, values.
            heads: how many of these are queries.

        Returns:
            (B, heads, head size).
        """
        self.current = self.held[layer]
        return self.attention(qkv[:, :heads], *self.current.append(qkv[:, heads:]))

    def attention(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from each row's new token; see :data:`alignkit_hf.fast.attention.Attend`."""
        return attend(query, keys, values, self.bias)


def _level(write: Tensor, longest: int) -> bool:
    """Whether all rows write at index ``longest`` - 1; not asked where asking means waiting."""
    return write.device.type == "cpu" and int(write.min()) == longest - 1


def _held_type(keys: Tensor) -> torch.dtype:
    """Return the type to hold keys and values in.

    Under autocast the rotation leaves keys in float32, and the attention product rounds them;
    they are held rounded.
    """
    device = keys.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else keys.dtype


def visible(positions: Tensor, longest: int, window: int | None) -> Tensor:
    """Return the decode mask of a :class:`RowCache`: does row b see its position j?

    Args:
        positions: (B,) position of each row's new token.
        longest: keys per row.
        window: a token sees itself and ``window`` - 1 before it; None sees all.

    Returns:
        (B, 1, 1, longest) bool.
    """
    position = torch.arange(longest, device=positions.device)
    last = positions[:, None]
    mask = position <= last
    if window is not None:
        mask &= position > last - window
    return mask[:, None, None]
