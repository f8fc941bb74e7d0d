"""Does decoding with a cache of ours give what plain calls of the model give?

Models differ in what they ask of masks, positions and attention code. Rather than a list of
architectures, a few tokens through the model decide in which ways it is decoded: at start, and
again, past it, before the first row that is longer than a window of the model's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alignkit.engine.forward.attention import UnsupportedAttentionError
from alignkit.engine.forward.trial import apart
from alignkit_hf.fast.cache import RowCache
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.shared import SharedCache
from alignkit_hf.fast.static import StaticCache, StaticForward
from alignkit_hf.sampling.calls import UnqualifiedError, logits_after, tolerance

Prompts = tuple[Sequence[int], Sequence[int]]

_PROMPTS: Prompts = ([5, 3, 4], [2])
_ROWS = (0, 0, 1)
"""Which prompt each row starts from."""
_NEXT = ([1, 2, 3], [3, 1, 2])
"""The tokens fed to the rows, step by step."""


def qualify(forward: Forward) -> None:
    """Let ``forward`` decode in the best way that is right, over less than any window.

    Raises:
        UnqualifiedError: it decodes right in none.
    """
    with forward.ready():
        want = _plain(forward, _PROMPTS)
        allowed = tolerance(forward.model)
        if forward.fuses:
            forward.refresh()
            errors = [_error(forward, cache, want) for cache in (SharedCache, RowCache)]
            forward.release()
            forward.fuses = max(errors) <= allowed
        if not forward.fuses and (error := _error(forward, RowCache, want)) > allowed:
            raise UnqualifiedError(_difference(error))
        if forward.fuses or _error(forward, SharedCache, want) <= allowed:
            forward.works_with = SharedCache
        if isinstance(forward, StaticForward) and forward.fits_model():
            forward.usable = _error(forward, StaticCache, want) <= allowed
            forward.fuses = forward.fuses and not forward.usable
            forward.forget()


def qualify_past(forward: Forward, window: int) -> None:
    """Try the caches that rows longer than ``window`` tokens get.

    Raises:
        UnqualifiedError: one of them decodes wrong there.
    """
    longest = max(1, min(window + 1, forward.policy.max_length - len(_NEXT)))
    prompts = ([1 + i % 5 for i in range(longest)], [2])
    kinds = {forward.cache_type(responses, window + 1) for responses in (1, 2**31)}
    with forward.ready():
        want = _plain(forward, prompts)
        forward.refresh()
        errors = [_error(forward, kind, want, prompts) for kind in kinds]
        forward.release()
        if max(errors) > tolerance(forward.model):
            raise UnqualifiedError(f"past a window of {window} tokens {_difference(max(errors))}")


def _difference(error: float) -> str:
    return f"with a key-value cache its logits differ by a share of {error:.2g} from those without"


def _plain(forward: Forward, prompts: Prompts) -> Tensor:
    """Return the logits (rows, V) after all tokens, by plain calls."""
    forward.own_attention()
    rows = [[*prompts[prompt], *(step[row] for step in _NEXT)] for row, prompt in enumerate(_ROWS)]
    logits = [logits_after(forward.model, torch.tensor([r], device=forward.device)) for r in rows]
    return torch.cat(logits)


def _error(
    forward: Forward, kind: type[RowCache], want: Tensor, prompts: Prompts = _PROMPTS
) -> float:
    """Return how far apart the logits are with this cache; infinite where it cannot be used."""
    try:
        return apart(_decoded(forward, kind, prompts), want)
    except UnsupportedAttentionError:
        return math.inf


def _decoded(forward: Forward, kind: type[RowCache], prompts: Prompts) -> Tensor:
    sizes = [(len(prompt), len(_NEXT)) for prompt in prompts]
    plan = kind.plan(n=2, sizes=sizes, budget=4 * max(map(sum, sizes)))
    found = {i: kv for i, _, kv in forward.prompts(prompts)}
    cache = kind(plan, found[0])
    held = [cache.hold(found[i]) for i in range(len(prompts))]
    for row, prompt in enumerate(_ROWS):
        cache.seat(held[prompt], slice(row, row + 1))
    lengths = torch.tensor([len(prompts[prompt]) for prompt in _ROWS], device=forward.device)
    for step, ids in enumerate(_NEXT):
        drawn = torch.full_like(lengths, step + 1)
        tokens = torch.tensor(ids, device=forward.device)
        logits = forward.decode(tokens, lengths + step, drawn, cache)
    return logits
