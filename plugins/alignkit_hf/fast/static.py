"""Decoding in a few fixed shapes, so that CUDA can record a step once and replay it.

A decode step of a small model is hundreds of kernels of a few microseconds each, and starting
them from Python takes far longer than running them. A CUDA graph starts them all at once, but
does exactly what was recorded: the same shapes, the same addresses. So rows are padded up to one
of few counts and keys to a multiple of 256; the cache is kept from call to call; inputs and
outputs are copied to and from fixed places. Idle rows compute something that nobody reads.

"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit_hf.fast.attention import NAME
from alignkit_hf.fast.cache import Plan, PromptKV, RowCache
from alignkit_hf.fast.forward import Forward

if TYPE_CHECKING:
    from alignkit.protocols import Policy

_KEYS = 256
"""Keys are padded to a multiple of this."""


class StaticCache(RowCache):
    """Rows at fixed addresses, all of them numbers from the start."""

    attends = True

    def __init__(self, plan: Plan, like: PromptKV) -> None:
        super().__init__(plan, like)
        self.plan_made = plan
        for layer in self.held:
            layer.keys.zero_()
            layer.values.zero_()
            layer.clean, layer.clean_rows = plan.row_tokens, plan.rows

    def fits(self, plan: Plan, like: PromptKV) -> bool:
        """Whether this cache serves ``plan`` as well as a new one would."""
        own, keys = self.plan_made, self.held[0].keys
        return (
            own.rows == plan.rows
            and own.row_tokens >= plan.row_tokens
            and keys.device == like[0][0].device
        )


@dataclass(slots=True)
class _Step:
    """A decode step of one shape."""

    tokens: Tensor
    positions: Tensor
    logits: Tensor
    run: Callable[[], None]
    """Compute ``logits`` anew from the other two."""


class StaticForward(Forward):
    """Forward passes whose decode steps have few shapes."""

    _steps: dict[tuple[int, int], _Step]
    _cache: StaticCache | None

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.usable = False
        """Whether decode steps of fixed shapes are right."""
        self._steps: dict[tuple[int, int], _Step] = {}
        self._cache: StaticCache | None = None

    def fits_model(self) -> bool:
        """Whether the model may be decoded this way: no window, and no weights cast each step."""
        with self.ready():
            return not any(self.windows.values()) and not torch.is_autocast_enabled(
                self.device.type
            )

    def cache_type(self, responses: int, longest: int) -> type[RowCache]:
        """Return the cache that stays in place, if the model can use it."""
        return StaticCache if self.usable else super().cache_type(responses, longest)

    def new_cache(self, kind: type[RowCache], plan: Plan, like: PromptKV) -> RowCache:
        """Return the current cache if it fits, or a new one in its place."""
        if kind is not StaticCache:
            return super().new_cache(kind, plan, like)
        if self._cache is None or not self._cache.fits(plan, like):
            self.forget()
            self._cache = StaticCache(plan, like)
        return self._cache

    def decode(self, tokens: Tensor, positions: Tensor, drawn: Tensor, cache: RowCache) -> Tensor:
        """Do as :meth:`Forward.decode` does, in the next larger shape."""
        if not isinstance(cache, StaticCache):
            return super().decode(tokens, positions, drawn, cache)
        running, longest = len(tokens), int(positions.max()) + 1
        rows = min(padded_rows(running), cache.plan_made.rows)
        keys = min(-(-longest // _KEYS) * _KEYS, cache.plan_made.row_tokens)
        if (rows, keys) not in self._steps:
            self._steps[rows, keys] = self._made(rows, keys, cache, (tokens, positions))
        step = self._steps[rows, keys]
        _fill(step, (tokens, positions))
        step.run()
        return step.logits[:running]

    def _made(self, rows: int, keys: int, cache: StaticCache, given: Sequence[Tensor]) -> _Step:
        """Make the step of a shape; ``given`` are the inputs it will have to begin with."""
        tokens, positions = torch.zeros(2, rows, dtype=torch.long, device=self.device)
        step = _Step(tokens, positions, torch.empty(0), run=lambda: None)

        def run() -> None:
            cache.point(step.positions, keys)
            step.logits = self._step(NAME, step.tokens, step.positions, cache)

        step.run = run
        return step

    def forget(self) -> None:
        """Let go of the cache and of the steps that use it."""
        self._steps, self._cache = {}, None


class GraphForward(StaticForward):
    """Decode steps as CUDA graphs, each recorded when its shape first comes up."""

    def __init__(self, policy: Policy) -> None:
        self._pool: Any = None
        self._plain = False
        super().__init__(policy)

    def _made(self, rows: int, keys: int, cache: StaticCache, given: Sequence[Tensor]) -> _Step:
        step = super()._made(rows, keys, cache, given)
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
            return super()._made(rows, keys, cache, given)
        return step

    def _record(self, step: _Step) -> None:
        """Run the step once, as libraries set themselves up at first use; then record it.

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

    def forget(self) -> None:
        super().forget()
        self._pool = None


def padded_rows(rows: int) -> int:
    """Return the next power of two, or three quarters of it where that is enough.

    >>> [padded_rows(n) for n in (1, 3, 5, 12, 13, 49, 200, 256)]
    [1, 4, 6, 12, 16, 64, 256, 256]
    """
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if power >= 8 and rows <= power * 3 // 4 else power


def _fill(step: _Step, given: Sequence[Tensor]) -> None:
    """Copy the inputs to their places; idle rows stay at position 0 of their own rows."""
    for place, values in zip((step.tokens, step.positions), given, strict=True):
        place[: len(values)] = values
        place[len(values) :] = 0
