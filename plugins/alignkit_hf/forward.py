"""Prompt and decode passes through any transformers decoder, by way of its own forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from alignkit.errors import AlignkitError
from alignkit_hf.cache import RowCache, visible

if TYPE_CHECKING:
    from torch import nn

    from alignkit.protocols import Policy
    from alignkit_hf.cache import PromptKV

_PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, in one forward pass."""


class Forward:
    """Runs one policy's model for sampling; holds no weights and no cache of its own."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.model: Any = policy.model
        self.config: Any = self.model.config.get_text_config()
        self.device = next(policy.model.parameters()).device
        self.kinds = _attention_kinds(self.config, policy.name)
        self.head = _linear_head(self.model)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Evaluation mode, no gradient, autocast, and an attention kernel that takes a mask."""
        model = self.model
        training, attention = model.training, self.config._attn_implementation
        model.eval()
        if attention.startswith("flash_attention"):
            self.config._attn_implementation = "sdpa"
        try:
            with torch.no_grad(), self.policy.autocast():
                yield
        finally:
            self.config._attn_implementation = attention
            model.train(training)

    def prompts(self, prompts: Sequence[Sequence[int]]) -> list[tuple[Tensor, PromptKV]]:
        """Return, for each prompt, next-token logits (V,) and its keys and values."""
        found: dict[int, tuple[Tensor, PromptKV]] = {}
        for batch in self._batches([len(p) for p in prompts]):
            found.update(zip(batch, self._prefill([prompts[i] for i in batch]), strict=True))
        return [found[i] for i in range(len(prompts))]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Cut prompts, longest first, into batches; of equal lengths if the head needs that."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            full = batch and (len(batch) + 1) * lengths[batch[0]] > _PREFILL_TOKENS
            if full or (batch and self.head is None and lengths[i] != lengths[batch[0]]):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> list[tuple[Tensor, PromptKV]]:
        """Run prompts padded on the right: under a causal mask padding reaches no real token."""
        lengths = [len(p) for p in prompts]
        ids = torch.full((len(prompts), max(lengths)), self.policy.pad_id)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        cache = DynamicCache()
        logits = self._last_logits(ids.to(self.device), lengths, cache)
        return [
            (
                logits[row],
                [(layer.keys[row, :, :n], layer.values[row, :, :n]) for layer in cache.layers],
            )
            for row, n in enumerate(lengths)
        ]

    def _last_logits(self, ids: Tensor, lengths: list[int], cache: DynamicCache) -> Tensor:
        positions = torch.arange(ids.shape[1], device=self.device)[None]
        given = {"position_ids": positions, "past_key_values": cache, "use_cache": True}
        if self.head is None:
            return self.model(ids, logits_to_keep=1, **given).logits[:, -1]
        hidden = self.model.base_model(ids, **given).last_hidden_state
        rows = torch.arange(len(lengths), device=self.device)
        return self.head(hidden[rows, torch.tensor(lengths, device=self.device) - 1])

    def decode(self, tokens: Tensor, lengths: Tensor, longest: int, cache: RowCache) -> Tensor:
        """Feed one token to each running row and return next-token logits (B, V).

        Args:
            tokens: (B,) the ids drawn last.
            lengths: (B,) their positions.
            longest: the largest position plus 1.
            cache: keys and values before them; gains one token per row.
        """
        cache.point(lengths, longest)
        output = self.model(
            tokens[:, None],
            position_ids=lengths[:, None],
            attention_mask=self._mask(lengths, longest),
            past_key_values=cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _mask(self, lengths: Tensor, longest: int) -> Any:
        masks = {kind: visible(lengths, longest, window) for kind, window in self.kinds.items()}
        if self.config._attn_implementation == "eager":
            masks = {kind: _additive(mask, self.model.dtype) for kind, mask in masks.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    hidden = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, hidden)


def _attention_kinds(config: Any, name: str) -> dict[str, int | None]:
    """Return the window of each kind of attention layer the model has."""
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    if unknown := layers - {"full_attention", "sliding_attention"}:
        raise AlignkitError(
            f"{name}: the hf rollout backend does not know {', '.join(sorted(unknown))} layers, "
            "only full and sliding attention"
        )
    if not layers:
        return {"full_attention": window}
    windows = {"full_attention": None, "sliding_attention": window}
    return {kind: windows[kind] for kind in sorted(layers)}


@torch.no_grad()
def _linear_head(model: Any) -> nn.Module | None:
    """Return the output layer if the logits are that layer of the last hidden state, else None.

    Some models scale or cap what the layer gives; two tokens tell.
    """
    head: nn.Module | None = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return None
    ids = torch.tensor([[0, 1]], device=next(model.parameters()).device)
    hidden = model.base_model(ids, use_cache=False).last_hidden_state
    same = torch.allclose(head(hidden), model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-5)
    return head if same else None
