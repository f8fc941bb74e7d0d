"""Does decoding with a cache of ours give what plain calls of the model give?

Models differ in their needs for masks, positions and attention code. Instead of a list of
architectures, a few tokens run through the model decide how it is decoded: once at the start, and
again before the first row that is longer than an attention window of the model or than its
positions were made for, with tokens past that length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from alignkit.engine.forward.attention import UnsupportedAttentionError
from alignkit.engine.forward.frozen import PolicyView
from alignkit.engine.forward.spans import windows
from alignkit.engine.forward.trial import apart, compute_dtype
from alignkit.protocols import Policy
from alignkit_hf.fast.cache import RowCache
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.shared import SharedCache
from alignkit_hf.fast.static import StaticCache, StaticForward
from alignkit_hf.fast.understood import shortened
from alignkit_hf.sampling.calls import UnqualifiedError, logits_after, tolerance

Prompts = tuple[Sequence[int], Sequence[int]]


def _prompts(forward: Forward) -> Prompts:
    """Return padded prompts to begin with: some models count positions without padding."""
    return [5, forward.policy.pad_id, 4], [2]


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
        prompts = _prompts(forward)
        want = _plain(forward, prompts)
        allowed = tolerance(forward.model)
        if forward.fuses:
            right = _fused_error(forward, want, prompts) <= allowed
            forward.fuses = right and _fuses_exactly(forward)
        if not forward.fuses and (error := _error(forward, RowCache, want, prompts)) > allowed:
            raise UnqualifiedError(_difference(error))
        if forward.fuses or _error(forward, SharedCache, want, prompts) <= allowed:
            forward.works_with = SharedCache
        if isinstance(forward, StaticForward) and forward.fits_model():
            forward.usable = _error(forward, StaticCache, want, prompts) <= allowed
            forward.fuses = forward.fuses and not forward.usable
            forward.forget()


def _fused_error(forward: Forward, want: Tensor, prompts: Prompts) -> float:
    """Return how far apart written-out steps are, with either cache."""
    forward.refresh()
    try:
        return max(_error(forward, kind, want, prompts) for kind in (SharedCache, RowCache))
    finally:
        forward.release()


def _fuses_exactly(forward: Forward) -> bool:
    """Try written-out steps in float32, where the model's own type rounds too much to tell.

    Two layers do: all are alike.
    """
    if compute_dtype(next(forward.model.parameters())).itemsize >= torch.float32.itemsize:
        return True
    view = PolicyView(forward.policy, shortened(forward.model), forward.policy.version)
    exact = Forward(cast(Policy, view))
    with exact.ready():
        prompts = _prompts(exact)
        error = _fused_error(exact, _plain(exact, prompts), prompts)
    return exact.fuses and error <= tolerance(exact.model)


def qualify_past(forward: Forward, border: int) -> None:
    """Try the caches that rows longer than ``border`` tokens get.

    Raises:
        UnqualifiedError: one of them decodes wrong there.
    """
    most = forward.policy.max_length - len(_NEXT)
    kinds = {forward.cache_type(responses, border + 1) for responses in (1, 2**31)}
    lengths = {max(1, min(length, most)) for length in (border - 1, border + 1)}
    with forward.ready():
        forward.refresh()
        errors = [0.0]
        for length in lengths:  # the first passes the border with its response
            prompts = ([1 + i % 5 for i in range(length)], [2])
            want = _plain(forward, prompts)
            errors += [_error(forward, kind, want, prompts) for kind in kinds]
        forward.release()
    if max(errors) > tolerance(forward.model):
        what = "a window of " if border in windows(forward.model.config) else ""
        raise UnqualifiedError(f"past {what}{border} tokens {_difference(max(errors))}")


def _difference(error: float) -> str:
    return f"with a key-value cache its logits differ by a share of {error:.2g} from those without"


def _plain(forward: Forward, prompts: Prompts) -> Tensor:
    """Return the logits (rows, V) after all tokens, by plain calls."""
    forward.own_attention()
    rows = [[*prompts[prompt], *(step[row] for step in _NEXT)] for row, prompt in enumerate(_ROWS)]
    logits = [logits_after(forward.model, torch.tensor([r], device=forward.device)) for r in rows]
    return torch.cat(logits)


def _error(forward: Forward, kind: type[RowCache], want: Tensor, prompts: Prompts) -> float:
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
