"""Checks of every normalizer: the update must not depend on how the step is cut."""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.protocols import StepTotals
from alignkit_testing.kit import Check, Subject

LENGTHS = (4, 1, 3, 0, 2, 4)
PARTITIONS = (
    [[0, 1, 2, 3, 4, 5]],
    [[0], [1], [2], [3], [4], [5]],
    [[5, 1], [3], [0, 4, 2]],
    [[2, 3, 1, 4], [0, 5]],
)


def returns_a_scalar(subject: Subject) -> None:
    """A 0-dimensional tensor in the type of the losses, ready for `backward()`."""
    per_token, mask, totals = _step()
    value = subject.build()(per_token, mask, totals=totals)
    assert value.shape == (), f"a normalizer returns a scalar, got shape {tuple(value.shape)}"
    assert value.dtype == per_token.dtype, f"returns {value.dtype} for {per_token.dtype} losses"
    assert value.requires_grad, "the gradient is cut off"


def adds_up_over_micro_batches(subject: Subject) -> None:
    """With the same totals, the sum over any partition is the value of the whole step."""
    per_token, mask, totals = _step()
    normalizer = subject.build()
    whole = normalizer(per_token, mask, totals=totals)
    for cut in PARTITIONS:
        parts = [_trimmed(per_token[rows], mask[rows]) for rows in cut]
        total = sum(normalizer(*part, totals=totals).item() for part in parts)
        assert abs(total - whole.item()) <= 1e-9, (
            f"micro-batches {cut} sum to {total:.6g}, the whole step is {whole.item():.6g}; divide "
            "by `totals`, not by counts of the micro-batch"
        )


def is_blind_to_masked_tokens(subject: Subject) -> None:
    """What stands at masked positions does not matter, infinities and NaN included."""
    per_token, mask, totals = _step()
    normalizer = subject.build()
    want = normalizer(per_token, mask, totals=totals)
    (want_grad,) = torch.autograd.grad(want, per_token)
    for filler in (7.0, float("inf"), float("nan")):
        smudged = per_token.detach().where(mask, filler).requires_grad_()
        value = normalizer(smudged, mask, totals=totals)
        (grad,) = torch.autograd.grad(value, smudged)
        assert torch.equal(value, want), (
            f"{filler:g} at masked positions turns {want.item():.6g} into {value.item():.6g}; use "
            "torch.where(mask, per_token, 0), a product lets NaN through"
        )
        assert torch.equal(grad, want_grad), f"{filler:g} at masked positions changes the gradient"


def ignores_padding(subject: Subject) -> None:
    """Columns of padding change nothing."""
    per_token, mask, totals = _step()
    normalizer = subject.build()
    wide = torch.cat([per_token, per_token.new_zeros(len(mask), 3)], 1)
    wide_mask = torch.cat([mask, mask.new_zeros(len(mask), 3)], 1)
    a = normalizer(per_token, mask, totals=totals).item()
    b = normalizer(wide, wide_mask, totals=totals).item()
    assert abs(a - b) <= 1e-9, f"three columns of padding turn {a:.6g} into {b:.6g}"


def survives_empty_responses(subject: Subject) -> None:
    """A micro-batch, or a step, without one token has value 0 and a finite gradient."""
    per_token, mask, _ = _step()
    for totals in (StepTotals(6, 14), StepTotals(2, 0)):
        losses = per_token[:2].detach().requires_grad_()
        value = subject.build()(losses, torch.zeros_like(mask[:2]), totals=totals)
        (grad,) = torch.autograd.grad(value, losses)
        assert value.item() == 0, f"two empty responses have the value {value.item():g}, not 0"
        assert grad.isfinite().all(), "two empty responses have a gradient that is not finite"


def keeps_the_sign(subject: Subject) -> None:
    """Every real token's loss counts with a positive weight."""
    per_token, mask, totals = _step()
    value = subject.build()(per_token, mask, totals=totals)
    (weights,) = torch.autograd.grad(value, per_token)
    assert (weights[mask] > 0).all(), (
        f"real tokens have weights {weights[mask].tolist()}; each must be positive"
    )


def _step() -> tuple[Tensor, Tensor, StepTotals]:
    g = torch.Generator().manual_seed(0)
    per_token = torch.randn(6, 4, generator=g, dtype=torch.float64)  # (B, T)
    mask = torch.arange(4)[None, :] < torch.tensor(LENGTHS)[:, None]  # (B, T)
    per_token = per_token.where(mask, 0.0).requires_grad_()
    return per_token, mask, StepTotals(len(LENGTHS), sum(LENGTHS))


def _trimmed(per_token: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a micro-batch to its own longest response, as the learner does."""
    width = max(int(mask.sum(1).max()), 1)
    return per_token[:, :width], mask[:, :width]


CHECKS: tuple[Check, ...] = (
    returns_a_scalar,
    adds_up_over_micro_batches,
    is_blind_to_masked_tokens,
    ignores_padding,
    survives_empty_responses,
    keeps_the_sign,
)
