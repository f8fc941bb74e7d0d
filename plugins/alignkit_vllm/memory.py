"""GPU memory: estimated and checked before the engine starts, and explained when it runs out.

In its share of a GPU's memory the engine holds the weights, a key-value cache for at least one
sequence of ``max_model_len`` tokens, and about ``WORK`` bytes for everything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from alignkit.errors import AlignkitError
from alignkit.model_shape import ModelShape
from alignkit_vllm.settings import WORK

if TYPE_CHECKING:
    from alignkit.protocols import Policy

GIB = 2**30

_CACHE = ("No available memory for the cache blocks", "larger than the available KV cache")
_SPACE = ("out of memory", "Free memory on device")


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine needs of each of its GPUs, in bytes."""

    weights: int
    per_token: int
    """For each token in the key-value cache."""
    length: int
    """``max_model_len``, tokens."""

    @property
    def least(self) -> int:
        """Bytes below which the engine does not start."""
        return self.weights + WORK + self.per_token * self.length

    def fitting(self, budget: float) -> int:
        """Return the largest multiple of 16 tokens for ``max_model_len`` in ``budget`` bytes."""
        if not self.per_token:
            return 0
        return max(0, int(budget - self.weights - WORK) // self.per_token // 16 * 16)


def needs_of(policy: Policy, options: Mapping[str, Any]) -> Needs:
    """Estimate the needs from the policy's configuration; no cache for an unknown architecture."""
    dtype: torch.dtype = getattr(torch, options["dtype"])
    cut = options.get("tensor_parallel_size") or 1
    shape = ModelShape.read(policy.model.config)
    if shape:  # a GPU holds its share of the heads, at least one
        shape = replace(shape, kv_heads=max(shape.kv_heads // cut, 1))
    numbers = sum(p.numel() for p in policy.model.parameters())
    return Needs(
        weights=numbers * dtype.itemsize // cut,
        per_token=shape.cache(dtype.itemsize) if shape else 0,
        length=options.get("max_model_len") or 0,
    )


def memory_problem(free: int, total: int, share: float, needs: Needs) -> str | None:
    """Return why an engine cannot have ``share`` of ``total`` bytes, ``free`` of them free.

    >>> memory_problem(30 * GIB, 80 * GIB, 0.3, Needs(3 * GIB, 2**15, 4096)) is None
    True
    """
    asked = f"gpu_memory_utilization = {share:g} is {share * total / GIB:.1f} GiB of the GPU"
    have = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    if share * total > free:
        return f"{asked}, but {have}: {remedy(free, total, needs)}"
    if share * total < needs.least:
        return (
            f"{asked}, but the engine needs about {needs.least / GIB:.1f} GiB: "
            f"{needs.weights / GIB:.1f} for weights, {WORK / GIB:.1f} to work in, "
            f"{needs.per_token * needs.length / GIB:.1f} for one sequence of max_model_len = "
            f"{needs.length} tokens; {have}: {remedy(free, total, needs, share)}"
        )
    return None


def remedy(free: int, total: int, needs: Needs, share: float = 1.0) -> str:
    """Return which key to change, and to which value.

    ``share`` is the share that was too small; 1 if it was too large.
    """
    most = _down(free * 0.95 / total)
    if _up(needs.least / total) <= most:
        wanted = min(most, _up(max(needs.least / total, share) * 1.1)) if share < 1 else most
        return f"set gpu_memory_utilization = {wanted:.2f} in [rollout]"
    fits = needs.fitting(most * total)
    if fits >= 256:
        return f"set gpu_memory_utilization = {most:.2f} and max_model_len = {fits} in [rollout]"
    return (
        "the engine does not fit into the free memory; end other programs on the GPU, or put the "
        'engine on a GPU of its own with mode = "device" in [rollout]'
    )


def _down(share: float) -> float:
    return math.floor(share * 100 + 1e-9) / 100


def _up(share: float) -> float:
    return math.ceil(share * 100 - 1e-9) / 100


@contextmanager
def advice_on_oom(
    options: Mapping[str, Any], needs: Needs | None = None, before: tuple[int, int] | None = None
) -> Iterator[None]:
    """Turn running out of memory in the block into an error that says which key to change.

    ``before`` holds the free and total bytes before the engine's start; None takes those now.
    """
    try:
        yield
    except (torch.OutOfMemoryError, ValueError, RuntimeError) as error:
        advice = explain(str(error), options, needs, before or here())
        if advice is None:
            raise
        raise AlignkitError(advice) from error


def here() -> tuple[int, int] | None:
    """Return the free and total bytes of this process's GPU, None without one."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()


def require(free: int, total: int, share: float, needs: Needs) -> None:
    """Raise AlignkitError for a :func:`memory_problem`."""
    if (message := memory_problem(free, total, share, needs)) is not None:
        raise AlignkitError(message)


def explain(
    text: str,
    options: Mapping[str, Any],
    needs: Needs | None = None,
    gpu: tuple[int, int] | None = None,
) -> str | None:
    """Return advice for an engine's error or log, None if it is not about memory.

    ``gpu`` holds the free bytes, without the engine, and the total.
    """
    share = options.get("gpu_memory_utilization")
    if line := _line(text, _CACHE):
        how = _more_cache(text, options, needs, gpu)
        return f"the vLLM engine has too little memory for its key-value cache: {how} ({line})"
    if line := _line(text, _SPACE):
        if share is None:
            return f"memory ran out: set kv_cache_gib lower in [rollout] ({line})"
        how = _less(text, share, needs, gpu)
        return (
            f"the GPU's memory ran out: {how}. If the learner holds most of it, halve "
            "token_budget, which changes no result; `alignkit explain RECIPE` shows what takes "
            f"memory ({line})"
        )
    return None


def _more_cache(
    text: str,
    options: Mapping[str, Any],
    needs: Needs | None,
    gpu: tuple[int, int] | None,
) -> str:
    share = options.get("gpu_memory_utilization")
    fits = re.search(r"estimated maximum model length is (\d+)", text)
    shorter = f" or max_model_len = {fits[1]}" if fits else ""
    if share is None:  # on a CPU kv_cache_gib sets the cache's size
        have = options.get("kv_cache_memory_bytes") or 0
        least = needs.per_token * needs.length * 1.25 if needs else 0
        gib = math.ceil(max(least, 2 * have) / GIB * 16) / 16
        return f"set kv_cache_gib = {gib:g}{shorter} in [rollout]"
    if needs and gpu and not shorter:
        return remedy(*gpu, needs, share)
    return f"set gpu_memory_utilization = {min(0.95, _up(share + 0.15)):.2f}{shorter} in [rollout]"


def _less(text: str, share: float, needs: Needs | None, gpu: tuple[int, int] | None) -> str:
    """Return advice with a smaller share: without the memory that was asked for in vain."""
    if found := re.search(r"Free memory on device[^(]*\(([\d.]+)/([\d.]+) GiB\)", text):
        free, total = (int(float(size) * GIB) for size in found.groups())
        return remedy(free, total, needs or Needs(0, 0, 0))
    asked = re.search(r"Tried to allocate ([\d.]+) ([KMG])iB", text)
    if gpu and asked:
        lacking = float(asked[1]) * {"K": 2**10, "M": 2**20, "G": GIB}[asked[2]] - gpu[0]
        wanted = _down(share - max(lacking, 0.0) * 1.25 / gpu[1] - 0.02)
    else:
        wanted = _down(share - 0.1)
    if needs and gpu and wanted * gpu[1] < needs.least:
        if (fits := needs.fitting(wanted * gpu[1])) < 256:
            return remedy(0, gpu[1], needs)
        return f"set gpu_memory_utilization = {wanted:.2f} and max_model_len = {fits} in [rollout]"
    return f"set gpu_memory_utilization = {max(wanted, 0.05):.2f} in [rollout]"


def _line(text: str, signs: tuple[str, ...]) -> str:
    """Return the first line that holds one of ``signs``, without a log's prefix, at most 200."""
    lines = (line for line in text.splitlines() if any(sign in line for sign in signs))
    return re.sub(r"^.*?\] ", "", next(lines, "")).strip()[:200]
