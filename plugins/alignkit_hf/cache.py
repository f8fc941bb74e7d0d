"""The key-value cache of running responses: allocated once per call, never concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    PromptKV = list[tuple[Tensor, Tensor]]
    """Per layer, keys and values of one prompt, each (key-value heads, prompt tokens, head size)."""


class RowLayer(CacheLayerMixin):
    """One layer's keys and values; row ``b`` holds its tokens at 0 .. length[b] - 1."""

    def __init__(self, rows: int, tokens: int, like: Tensor) -> None:
        super().__init__()
        heads, _, size = like.shape
        self.keys = like.new_empty(rows, heads, tokens, size)
        self.values = like.new_empty(rows, heads, tokens, size)
        self.is_initialized = True
        self.cursor = _Cursor(like.device)

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
        at, longest = self.cursor, self.cursor.longest
        self.keys[at.rows, :, at.write] = key_states[:, :, 0]
        self.values[at.rows, :, at.write] = value_states[:, :, 0]
        running = len(at.rows)
        return self.keys[:running, :, :longest], self.values[:running, :, :longest]

    def get_seq_length(self) -> int:
        """Return tokens of the longest row, before the one being added."""
        return self.cursor.longest - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return key length and offset; the mask we pass in is ready-made, so only for form."""
        return self.cursor.longest, 0

    def get_max_length(self) -> int:
        """Return the tokens a row can hold."""
        return int(self.keys.shape[2])

    get_max_cache_shape = get_max_length  # the name before transformers 5.17

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the layer is allocated in the constructor."""


class _Cursor:
    """Where the next token of each running row goes; shared by all layers."""

    def __init__(self, device: torch.device) -> None:
        self.rows = torch.empty(0, dtype=torch.long, device=device)
        self.write = self.rows
        self.longest = 0


class RowCache(Cache):
    """Keys and values of up to ``rows`` running responses, the running ones always first."""

    def __init__(self, rows: int, tokens: int, like: PromptKV) -> None:
        layers = [RowLayer(rows, tokens, keys) for keys, _ in like]
        super().__init__(layers=list(layers))
        self.row_layers = layers
        self.cursor = layers[0].cursor
        for layer in layers:
            layer.cursor = self.cursor

    def seat(self, prompt: PromptKV, rows: slice) -> None:
        """Copy a prompt into rows that start from it."""
        for layer, (keys, values) in zip(self.row_layers, prompt, strict=True):
            layer.keys[rows, :, : keys.shape[1]] = keys
            layer.values[rows, :, : keys.shape[1]] = values

    def move(self, source: Sequence[int], target: Sequence[int], longest: int) -> None:
        """Copy rows onto rows that have finished."""
        for layer in self.row_layers:
            for held in (layer.keys, layer.values):
                held[target, :, :longest] = held[source, :, :longest]

    def point(self, lengths: Tensor, longest: int) -> None:
        """Say that the next forward adds one token to rows 0 .. B - 1, at ``lengths`` (B,)."""
        self.cursor.rows = torch.arange(len(lengths), device=lengths.device)
        self.cursor.write = lengths
        self.cursor.longest = longest


def visible(lengths: Tensor, longest: int, window: int | None) -> Tensor:
    """Return the decode mask: may the new token of row b see position j?

    Args:
        lengths: (B,) position of each row's new token.
        longest: keys per row.
        window: a token sees itself and ``window`` - 1 before it; None sees all.

    Returns:
        (B, 1, 1, longest) bool.
    """
    position = torch.arange(longest, device=lengths.device)
    last = lengths[:, None]
    mask = position <= last
    if window is not None:
        mask &= position > last - window
    return mask[:, None, None]
