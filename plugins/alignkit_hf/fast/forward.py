"""Prompt and decode passes through any transformers decoder, using its own forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from alignkit.engine.forward.logprobs import has_linear_head
from alignkit_hf.fast.attention import NAME, attending
from alignkit_hf.fast.cache import Plan, PromptKV, RowCache, visible
from alignkit_hf.fast.fused import Fused, is_usual
from alignkit_hf.fast.understood import unknown_fields
from alignkit_hf.sampling.calls import UnqualifiedError, inference, last_only, with_cache

if TYPE_CHECKING:
    from torch import nn

    from alignkit.protocols import Policy

_PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, in one forward pass."""

_ALONE = 4


class Forward:
    """Runs one policy's model for sampling; holds no weights and no cache of its own.

    Which ways of decoding are right for the model, :func:`alignkit_hf.fast.probe.qualify` says.
    """

    def __init__(self, policy: Policy) -> None:
        """Inspect the model.

        Raises:
            UnqualifiedError: some layers are neither full nor sliding attention.
        """
        self.policy = policy
        self.model = cast(Any, policy.model)
        self.config: Any = self.model.config.get_text_config()
        self.device: torch.device = next(self.model.parameters()).device
        self.attention: str = self.config._attn_implementation
        self.attending = self.attention
        self.windows = _windows(self.config)
        with self.ready():
            linear = has_linear_head(self.model)
        self.head: nn.Module | None = self.model.get_output_embeddings() if linear else None
        self.fused: Fused | None = None
        self.fuses = (
            self.device.type == "cpu"
            and is_usual(self.model)
            and not unknown_fields(self.config)
            and not any(self.windows.values())
        )
        """Whether decode steps are run by ``fused``."""
        self.works_with: type[RowCache] = RowCache
        """The best cache whose decode steps are right."""

    def refresh(self) -> None:
        """Take over the model's current weights; needed before decoding once they have changed."""
        with self.ready():
            plain = not torch.is_autocast_enabled(self.device.type)
            self.fused = Fused(self.model) if self.fuses and plain else None

    def release(self) -> None:
        """Drop what was laid out for decoding."""
        self.fused = None

    def forget(self) -> None:
        """Drop what is kept from call to call; here, nothing is."""

    def cache_type(self, responses: int, longest: int) -> type[RowCache]:
        """Return the cache for so many responses, with their prompts up to ``longest`` tokens.

        Sharing prompts takes more, smaller steps, which is not worth it for a handful of responses.
        """
        windows = [w for w in self.windows.values() if w is not None]
        alone = responses <= _ALONE or min(windows, default=longest) < longest
        return RowCache if alone else self.works_with

    def new_cache(self, kind: type[RowCache], plan: Plan, like: PromptKV) -> RowCache:
        """Return an empty cache for prompts whose keys and values are like ``like``."""
        return kind(plan, like)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Evaluation mode, no gradient, autocast; the model is left as it was found."""
        try:
            with inference(self.policy):
                yield
        finally:
            self.own_attention()

    def own_attention(self) -> None:
        """Let the model attend as its configuration says until the next pass."""
        self._attend_with(self.attention)

    def _attend_with(self, name: str) -> None:
        if name != self.attending:  # setting it walks through the whole configuration
            self.config._attn_implementation = self.attending = name

    # ------------------------------------------------------------ prompts

    def prompts(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, Tensor, PromptKV]]:
        """Yield index, next-token logits (V,) and keys and values of each prompt, in any order."""
        self.own_attention()
        for batch in self._batches([len(p) for p in prompts]):
            yield from zip(batch, *self._prefill([prompts[i] for i in batch]), strict=True)

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

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[PromptKV]]:
        """Run prompts padded on the right: under a causal mask padding reaches no real token."""
        lengths = [len(p) for p in prompts]
        ids = torch.full((len(prompts), max(lengths)), self.policy.pad_id)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        cache = DynamicCache()
        logits = self._last_logits(ids.to(self.device), lengths, cache)
        held = self.fused.keys if self.fused else lambda keys: keys
        layers = [(held(layer.keys), layer.values) for layer in cast(Any, cache.layers)]
        return logits, [
            [(keys[row, :, :n], values[row, :, :n]) for keys, values in layers]
            for row, n in enumerate(lengths)
        ]

    def _last_logits(self, ids: Tensor, lengths: list[int], cache: DynamicCache) -> Tensor:
        positions = torch.arange(ids.shape[1], device=self.device)[None]
        called = self.model if self.head is None else self.model.get_decoder()
        given = {"position_ids": positions, **with_cache(called, cache)}
        if self.head is None:
            logits: Tensor = called(ids, **last_only(called), **given).logits[:, -1]
            return logits
        hidden = called(ids, **given).last_hidden_state
        rows = torch.arange(len(lengths), device=self.device)
        logits = self.head(hidden[rows, torch.tensor(lengths, device=self.device) - 1])
        return logits

    # ------------------------------------------------------------ responses

    def decode(self, tokens: Tensor, positions: Tensor, drawn: Tensor, cache: RowCache) -> Tensor:
        """Feed each running row the token it drew last; return next-token logits (B, V).

        Args:
            tokens: (B,) those tokens' ids.
            positions: (B,) their positions, counted from the start of the prompt.
            drawn: (B,) how many tokens the response has with them.
            cache: what came before them; gains one token per row.
        """
        write = cache.places(positions, drawn)
        longest = int(write.max()) + 1
        cache.point(write, longest)
        if self.fused is not None:
            return self.fused.step(tokens, positions, cache)
        if cache.attends:
            return self._step(NAME, tokens, positions, cache)
        mask = self._mask(positions, longest)
        return self._step(_maskable(self.attention), tokens, positions, cache, mask)

    def _step(
        self, attention: str, tokens: Tensor, positions: Tensor, cache: RowCache, mask: Any = None
    ) -> Tensor:
        """Run the model's own forward on one token per row, with ``attention`` in its layers."""
        self._attend_with(attention)
        with attending(cache.attention):
            output = self.model(
                tokens[:, None],
                attention_mask=mask,
                position_ids=positions[:, None],
                **with_cache(self.model, cache),
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _mask(self, positions: Tensor, longest: int) -> Any:
        masks = {kind: visible(positions, longest, size) for kind, size in self.windows.items()}
        if self.attention == "eager":
            masks = {kind: _additive(mask, self.model.dtype) for kind, mask in masks.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))


def _maskable(attention: str) -> str:
    """Return an attention that takes a mask per row: flash-attn's kernels do not."""
    return "sdpa" if attention.startswith("flash_attention") else attention


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    hidden = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, hidden)


def _windows(config: Any) -> dict[str, int | None]:
    """Return the window of each kind of attention layer the model has; None sees everything."""
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    if unknown := layers - {"full_attention", "sliding_attention"}:
        raise UnqualifiedError(
            f"its {', '.join(sorted(unknown))} layers are neither full nor sliding attention"
        )
    if not layers:
        return {"full_attention": window}
    windows = {"full_attention": None, "sliding_attention": window}
    return {kind: windows[kind] for kind in sorted(layers)}
