"""Does decoding with a cache of ours give what the model gives without one?

Models differ in what they ask of masks, positions and attention code. Rather than a list of
architectures, a few tokens through the model at start decide which cache it can be sampled with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit.engine.forward.trial import apart, compute_dtype
from alignkit.errors import AlignkitError
from alignkit_hf.cache import RowCache
from alignkit_hf.shared import SharedCache, UnsupportedAttentionError

if TYPE_CHECKING:
    from alignkit_hf.forward import Forward

_PROMPTS = ([5, 3, 4], [2])
_ROWS = (0, 0, 1)
"""Which prompt each row starts from."""
_NEXT = ([1, 2, 3], [3, 1, 2])
"""The tokens fed to the rows, step by step."""


def working_cache(forward: Forward) -> tuple[type[RowCache], bool]:
    """Return the best way ``forward``'s model decodes right: which cache, and whether fused.

    Raises:
        AlignkitError: it decodes right with none.
    """
    errors: list[float] = []
    with forward.ready():
        expected = _without_cache(forward)
        if forward.fuses:
            forward.refresh()
            caches = (SharedCache, RowCache)
            fused = [apart(_decoded(forward, cache), expected) for cache in caches]
            forward.release()
            if max(fused) <= _tolerance(forward):
                return SharedCache, True
        for cache_type in (SharedCache, RowCache):
            try:
                errors.append(apart(_decoded(forward, cache_type), expected))
            except UnsupportedAttentionError:
                continue
            if errors[-1] <= _tolerance(forward):
                return cache_type, False
    raise AlignkitError(
        f"the hf rollout backend cannot sample from {forward.policy.name}: with a key-value cache "
        f"its logits differ by a share of {errors[-1]:.2g} from those without; use another backend"
    )


def agrees(forward: Forward, cache_type: type[RowCache]) -> bool:
    """Whether ``forward``'s model decodes right with this cache."""
    with forward.ready():
        expected = _without_cache(forward)  # before the attention is another
        return apart(_decoded(forward, cache_type), expected) <= _tolerance(forward)


def _without_cache(forward: Forward) -> Tensor:
    rows = [[*_PROMPTS[prompt], *(step[row] for step in _NEXT)] for row, prompt in enumerate(_ROWS)]
    logits = [
        forward.model(torch.tensor([ids], device=forward.device), use_cache=False).logits[0, -1]
        for ids in rows
    ]
    return torch.stack(logits)


def _decoded(forward: Forward, cache_type: type[RowCache]) -> Tensor:
    sizes = [(len(prompt), len(_NEXT)) for prompt in _PROMPTS]
    plan = cache_type.plan(n=2, sizes=sizes, budget=100)
    found = {i: kv for i, _, kv in forward.prompts(_PROMPTS)}
    cache = cache_type(plan, found[0])
    held = [cache.hold(found[i]) for i in range(len(_PROMPTS))]
    for row, prompt in enumerate(_ROWS):
        cache.seat(held[prompt], slice(row, row + 1))
    lengths = torch.tensor([len(_PROMPTS[prompt]) for prompt in _ROWS], device=forward.device)
    for step, ids in enumerate(_NEXT):
        drawn = torch.full_like(lengths, step + 1)
        longest = step + 1 if plan.prompts else int(lengths.max()) + step + 1
        tokens = torch.tensor(ids, device=forward.device)
        logits = forward.decode(tokens, lengths + step, drawn, longest, cache)
    return logits


def _tolerance(forward: Forward) -> float:
    if compute_dtype(next(forward.model.parameters())) != torch.float32:
        return 0.1
    return 1e-2 if forward.device.type == "cuda" else 1e-3
