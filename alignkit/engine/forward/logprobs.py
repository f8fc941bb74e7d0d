"""Log-probabilities and entropies of response tokens, without the (B, T, V) logits.

The output head is applied to the hidden states of response tokens only, and never all at once:
see ``head``.

Shapes: B = rows, T = response tokens of the longest row, N = response tokens of all rows,
H = hidden size, V = vocabulary. Natural logarithms; entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.engine.forward import passes
from alignkit.engine.forward.compiling import compiled
from alignkit.engine.forward.oom import advice_on_oom
from alignkit.engine.forward.packable import can_pack, can_pad
from alignkit.engine.forward.packed import shared_batches
from alignkit.engine.forward.passes import has_linear_head, token_logprobs
from alignkit.engine.forward.trial import still
from alignkit.engine.observing.metering import note_pass
from alignkit.engine.ranks import here
from alignkit.engine.ranks.shards import shards_of
from alignkit.engine.tokens import TrainRow, micro_batches, on_host
from alignkit.errors import AlignkitError

if TYPE_CHECKING:
    from alignkit.protocols import Policy

NOTHING = TrainRow((0,), (0,))
"""The row that a rank computes when it has none left and other ranks have."""

__all__ = [
    "by_row",
    "cut",
    "detached",
    "has_linear_head",
    "in_pace",
    "response_logprobs",
    "token_logprobs",
]


def response_logprobs(
    policy: Policy,
    rows: Sequence[TrainRow],
    *,
    temperature: float = 1.0,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return log πθ(o_t | q, o_<t) of every trained token, entropies, and the mask.

    ``temperature`` divides the logits, as it did when the response was sampled; the entropies are
    the policy's own, at temperature 1. All three are (B, T); the log-probs carry the gradient, the
    entropies do not and are None unless asked for. Padding holds zeros. float32, or float64 for a
    float64 model. Nothing is random: training-only behaviour, such as dropout, is off.

    Raises:
        AlignkitError: a row is too long for the policy, or its model is not causal.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    _refuse_too_long(policy, rows)
    how = {"temperature": temperature, "with_entropy": with_entropy}
    with policy.autocast(), advice_on_oom(policy, rows), still(policy.model):
        packs = can_pack(policy.model) and any(row.trained_ids for row in rows)
        with compiled(policy.model):
            logprobs, entropy, mask = _computed(policy, rows, packs, how)
    note_pass(policy.model, rows, logprobs, shared=packs)
    spread = _spread(entropy, mask) if with_entropy else None
    return _spread(logprobs, mask), spread, mask


def _computed(
    policy: Policy, rows: Sequence[TrainRow], packs: bool, how: dict[str, Any]
) -> passes.Found:
    """Run the fastest pass that is correct for the policy's model."""
    if packs:
        return passes.packed(policy.model, rows, **how)
    if can_pad(policy.model):
        return passes.padded(policy.model, rows, pad_id=policy.pad_id, **how)
    return passes.alone(policy.model, rows, **how)


def _refuse_too_long(policy: Policy, rows: Sequence[TrainRow]) -> None:
    longest = max((row.length for row in rows), default=0)
    if longest > policy.max_length:
        raise AlignkitError(
            f"a row of {longest} tokens is longer than the {policy.max_length} that "
            f"{policy.name} takes"
        )


def by_row(batches: Iterable[tuple[Sequence[TrainRow], Tensor]]) -> list[list[Tensor]]:
    """Cut (B, T) values of each batch of rows into the rows' own, (T_i,), on the CPU.

    All batches are copied together, so that the host waits for the device only once.
    """
    rows, values = zip(*batches, strict=True) if (batches := list(batches)) else ((), ())
    return [
        [found[i, : len(row.trained_ids)].clone() for i, row in enumerate(some)]
        for some, found in zip(rows, on_host(values), strict=True)
    ]


@torch.no_grad()
def detached(
    policy: Policy,
    rows: Sequence[TrainRow],
    cut: Callable[[Sequence[TrainRow]], list[list[int]]],
    *,
    temperature: float = 1.0,
    entropies: bool = False,
) -> list[Tensor]:
    """Return the log-probs of each row's response tokens, or the entropies, (T_i,) on the CPU.

    ``cut`` divides the rows that have such tokens into the batches that are computed together.
    """
    group = here()
    mine = group.share([row.length for row in rows])
    at = [i for i in mine if rows[i].trained_ids]
    batches = [[at[j] for j in batch] for batch in cut([rows[i] for i in at])]
    values = []
    with in_pace(policy, len(batches)):
        for batch in batches:
            chosen = [rows[i] for i in batch]
            logprobs, entropy, _ = response_logprobs(
                policy, chosen, temperature=temperature, with_entropy=entropies
            )
            values.append((chosen, logprobs if entropy is None else entropy))
    found = {i: torch.zeros(0) for i in mine}
    for batch, own in zip(batches, by_row(values), strict=True):
        found |= zip(batch, own, strict=True)
    return list(group.merge(found).values())


@contextmanager
def in_pace(policy: Policy, passes: int) -> Iterator[None]:
    """Run the block, which does ``passes`` passes, then add passes until all ranks did as many.

    A sharded model needs that, as all ranks gather its layers together in every pass. Gradients of
    the added passes are zero. For any other model none are added.
    """
    if shards_of(policy.model) is None:
        yield
        return
    missing = max(here().gather(passes)) - passes
    with here().guarded():
        yield
        _pass_on(policy, missing)


def _pass_on(policy: Policy, count: int) -> None:
    for _ in range(count):
        logprobs, _, _ = response_logprobs(policy, [NOTHING], with_entropy=False)
        if logprobs.requires_grad:
            torch.autograd.backward(logprobs, torch.zeros_like(logprobs))


def cut(
    policy: Policy, rows: Sequence[TrainRow], token_budget: int, whole_budget: int = 0
) -> list[list[int]]:
    """Cut ``rows`` into the micro-batches that response_logprobs computes at the lowest cost.

    Returns indices of rows, each in exactly one micro-batch. ``token_budget`` caps the tokens that
    a micro-batch computes: shared prompts once and no padding if the model's rows can be packed,
    else padding included. Rows that share a prompt may take ``whole_budget`` to stay together.
    """
    with policy.autocast():  # can_pack decides for the type that the policy computes in
        packs = can_pack(policy.model)
    if packs:
        return shared_batches(rows, token_budget, whole_budget)
    return micro_batches([row.length for row in rows], token_budget)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put (N,) values where the (B, T) mask is True, zeros elsewhere; differentiable."""
    zeros = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    return zeros.masked_scatter(mask, values)
