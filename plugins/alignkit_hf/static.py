"""Decoding in a few fixed shapes, so that CUDA can record a step once and replay it.

A decode step of a small model is hundreds of kernels of a few microseconds each, and starting
them from Python takes far longer than running them. A CUDA graph starts them all at once, but
does exactly what was recorded: the same shapes, the same addresses. So rows are padded up to one
of few counts and keys to a multiple of 256; the cache is kept from call to call; inputs and
outputs are copied to and from fixed places. Idle rows compute something that nobody reads.

Attention reads each key and value once for all the heads that share it: (heads per key-value
head, head size) x (head size, keys) per row. The library kernels that take a mask per row copy
them once per head, which at 256 rows costs more than all the rest of the step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor
from transformers import AttentionInterface

from alignkit_hf.cache import Plan, PromptKV, RowCache
from alignkit_hf.forward import Forward
from alignkit_hf.probe import agrees
from alignkit_hf.shared import UnsupportedAttentionError, refuse_unknown

if TYPE_CHECKING:
    from torch import nn

    from alignkit.protocols import Policy

NAME = "alignkit_static_decode"
"""What the attention function is called in transformers' registry."""

_KEYS = 256
"""Keys are padded to a multiple of this."""

_MASK: ContextVar[Tensor] = ContextVar("the mask of the decode step under way, (B, 1, 1, keys)")


class StaticCache(RowCache):
    """Rows at fixed addresses, all of them numbers from the start."""

    def __init__(self, plan: Plan, like: PromptKV) -> None:
        super().__init__(plan, like)
        self.plan_made = plan
        for layer in self.held:
            layer.keys.zero_()
            layer.values.zero_()
            layer.clean = plan.row_tokens

    def fits(self, plan: Plan, like: PromptKV) -> bool:
        """Whether this cache serves ``plan`` as well as a new one would."""
        own, keys = self.plan_made, self.held[0].keys
        return (
            own.rows == plan.rows
            and own.row_tokens >= plan.row_tokens
            and keys.device == like[0][0].device
        )

    def point(self, positions: Tensor, drawn: Tensor, longest: int) -> Self:
        """Say where the next pass writes, in tensors that stay where they are."""
        self.cursor.rows = torch.arange(len(positions), device=positions.device)
        self.cursor.write = positions
        self.cursor.longest = longest
        return self


@dataclass(slots=True)
class _Step:
    """A decode step of one shape."""

    tokens: Tensor
    positions: Tensor
    drawn: Tensor
    logits: Tensor
    run: Callable[[], None]
    """Compute ``logits`` anew from the other three."""


class StaticForward(Forward):
    """Forward passes whose decode steps have few shapes."""

    def __init__(self, policy: Policy) -> None:
        self.usable = False
        super().__init__(policy)
        self._steps: dict[tuple[int, int], _Step] = {}
        self._cache: StaticCache | None = None
        windows = [w for w in self.windows.values() if w is not None]
        try:
            with self.ready():
                cast_once = torch.is_autocast_enabled(self.device.type)
                self.usable = not windows and not cast_once and agrees(self, StaticCache)
        except UnsupportedAttentionError:
            self.usable = False
        self.fuses = self.fuses and not self.usable
        self._forget()

    def cache_type(self, responses: int, longest: int) -> type[RowCache]:
        """Return what makes the cache, or the one that is there, if the model can do with it."""
        if not self.usable:
            return super().cache_type(responses, longest)
        return cast(type[RowCache], _Kept(self))

    def kept(self, plan: Plan, like: PromptKV) -> StaticCache:
        """Return the cache at hand if it fits, or a new one in its place."""
        if self._cache is None or not self._cache.fits(plan, like):
            self._forget()
            self._cache = StaticCache(plan, like)
        return self._cache

    def decode(
        self, tokens: Tensor, positions: Tensor, drawn: Tensor, longest: int, cache: RowCache
    ) -> Tensor:
        """Do as :meth:`Forward.decode` does, in the next larger shape."""
        if not isinstance(cache, StaticCache):
            return super().decode(tokens, positions, drawn, longest, cache)
        running = len(tokens)
        rows = min(padded_rows(running), cache.plan_made.rows)
        keys = min(-(-longest // _KEYS) * _KEYS, cache.plan_made.row_tokens)
        if (rows, keys) not in self._steps:
            self._steps[rows, keys] = self._step(rows, keys, cache, (tokens, positions, drawn))
        step = self._steps[rows, keys]
        _fill(step, (tokens, positions, drawn))
        step.run()
        return step.logits[:running]

    def _step(self, rows: int, keys: int, cache: StaticCache, given: Sequence[Tensor]) -> _Step:
        """Make the step of a shape; ``given`` are the inputs it will have to begin with."""
        tokens, positions, drawn = torch.zeros(3, rows, dtype=torch.long, device=self.device)
        step = _Step(tokens, positions, drawn, torch.empty(0), run=lambda: None)

        def run() -> None:
            step.logits = self._compute(step, keys, cache)

        step.run = run
        return step

    def _compute(self, step: _Step, keys: int, cache: StaticCache) -> Tensor:
        cache.point(step.positions, step.drawn, keys)
        self._attend_with(NAME)
        past = torch.arange(keys, device=self.device) > step.positions[:, None]
        mask = torch.zeros(past.shape, device=self.device).masked_fill_(past, -torch.inf)
        token = _MASK.set(mask[:, None, None])
        try:
            output = self.model(
                step.tokens[:, None],
                position_ids=step.positions[:, None],
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            _MASK.reset(token)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _forget(self) -> None:
        """Let go of the cache and of the steps that use it."""
        self._steps, self._cache = {}, None


class GraphForward(StaticForward):
    """Decode steps as CUDA graphs, each recorded when its shape first comes up."""

    def __init__(self, policy: Policy) -> None:
        self._pool: Any = None
        self._plain = False
        super().__init__(policy)

    def _step(self, rows: int, keys: int, cache: StaticCache, given: Sequence[Tensor]) -> _Step:
        step = super()._step(rows, keys, cache, given)
        if self._plain:
            return step
        _fill(step, given)
        try:
            self._record(step)
        except RuntimeError as error:
            self._plain = True
            warnings.warn(
                f"decoding {self.policy.name} goes on without CUDA graphs: {error}", stacklevel=2
            )
            return super()._step(rows, keys, cache, given)
        return step

    def _record(self, step: _Step) -> None:
        """Run the step for its own sake, as libraries set themselves up at first use; record it.

        Running it more than once changes nothing: each time the same keys and values are
        written to the same places.
        """
        beside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(beside):
            for _ in range(2):
                step.run()
        torch.cuda.current_stream(self.device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # Another thread may be learning meanwhile: what it allocates is no concern of this.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step.run()
        step.run = graph.replay

    def _forget(self) -> None:
        super()._forget()
        self._pool = None


class _Kept:
    """Stands in for a cache's type: hands out the cache that is there already."""

    def __init__(self, forward: StaticForward) -> None:
        self.plan = StaticCache.plan
        self._forward = forward

    def __call__(self, plan: Plan, like: PromptKV) -> StaticCache:
        return self._forward.kept(plan, like)


def padded_rows(rows: int) -> int:
    """Return the next power of two, or three quarters of it where that is enough.

    >>> [padded_rows(n) for n in (1, 3, 5, 12, 13, 49, 200, 256)]
    [1, 4, 6, 12, 16, 64, 256, 256]
    """
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if power >= 8 and rows <= power * 3 // 4 else power


def _fill(step: _Step, given: Sequence[Tensor]) -> None:
    """Copy the inputs to their places; idle rows stay at position 0 of their own rows."""
    for place, values in zip((step.tokens, step.positions, step.drawn), given, strict=True):
        place[: len(values)] = values
        place[len(values) :] = 0


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from each row's new token to the keys its mask allows.

    Args:
        module: the attention layer; not used.
        query: (B, heads, 1, head size).
        key: (B, key-value heads, keys, head size), as is ``value``.
        attention_mask: not used; the step knows.
        scaling: factor of the scores; None is 1 / sqrt(head size).
        **kwargs: what the model passes besides.

    Returns:
        (B, 1, heads, head size), and None for the weights.

    Raises:
        UnsupportedAttentionError: the model wants capped scores, sinks or a position bias.
    """
    refuse_unknown(kwargs)
    rows, heads, _, size = query.shape
    query = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    query = (query * (size**-0.5 if scaling is None else scaling)).to(key.dtype)
    scores = (query @ key.transpose(-1, -2)).float() + _MASK.get()  # (B, kv, heads / kv, keys)
    out = scores.softmax(-1).to(value.dtype) @ value
    return out.reshape(rows, 1, heads, size), None


AttentionInterface.register(NAME, attention)
