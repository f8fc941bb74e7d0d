"""GPU memory: looked at before the engine starts, and explained when it runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from alignkit.errors import AlignkitError

GIB = 2**30

_CACHE = ("No available memory for the cache blocks", "can be stored in KV cache", "KV cache is")
_SPACE = ("out of memory", "Free memory on device", "less than desired GPU memory")


def require_free(share: float) -> None:
    """Raise AlignkitError unless ``share`` of the current GPU's memory is free."""
    free, total = torch.cuda.mem_get_info()
    if (message := shortage(free, total, share)) is not None:
        raise AlignkitError(message)


def shortage(free: int, total: int, share: float) -> str | None:
    """Return what is wrong with taking ``share`` of ``total`` bytes of which ``free`` are free.

    >>> shortage(30 * GIB, 80 * GIB, 0.3) is None
    True
    """
    if share * total <= free:
        return None
    fitting = math.floor(20 * free / total * 0.95) / 20
    remedy = f"set gpu_memory_utilization = {fitting:.2f}" if fitting else "free memory on the GPU"
    return (
        f"gpu_memory_utilization = {share:g} asks for {share * total / GIB:.1f} GiB of the GPU, "
        f"of which {free / GIB:.1f} of {total / GIB:.1f} GiB are free: {remedy} in [rollout], or "
        f'put the engine on a GPU of its own with mode = "device"'
    )


@contextmanager
def explained(options: Mapping[str, Any]) -> Iterator[None]:
    """Say which key to turn, and to what, when the block runs out of memory."""
    try:
        yield
    except (torch.OutOfMemoryError, ValueError, RuntimeError) as error:
        advice = explain(str(error), options)
        if advice is None:
            raise
        raise AlignkitError(advice) from error


def explain(error: str, options: Mapping[str, Any]) -> str | None:
    """Return advice for the text of an engine's error, None if it is not about memory."""
    share = options.get("gpu_memory_utilization") or 0.0
    length = options.get("max_model_len") or 0
    first = error.strip().splitlines()[0] if error.strip() else error
    if any(text in error for text in _CACHE):
        more = (
            f"gpu_memory_utilization = {min(0.95, share + 0.15):.2f}"
            if share
            else (f"kv_cache_gib = {2 * (options.get('kv_cache_memory_bytes') or GIB) / GIB:g}")
        )
        return (
            f"the vLLM engine has too little memory for its key-value cache ({first}): set {more} "
            f"or max_model_len = {max(2, length // 2)} in [rollout]"
        )
    if any(text in error for text in _SPACE):
        return (
            f"the GPU's memory ran out ({first}): set gpu_memory_utilization = "
            f"{max(0.1, share - 0.15):.2f} or max_model_len = {max(2, length // 2)} in [rollout]; "
            "if it was the learner's share that grew, halve token_budget"
        )
    return None
