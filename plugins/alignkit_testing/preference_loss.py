"""Checks of every preference loss: each pair counts for itself, and in the right direction."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from alignkit.protocols import PreferenceOutput, PreferencePairs
from alignkit_testing.kit import Check, Subject

REFERENCE = ("ref_chosen", "ref_rejected")


def returns_a_number_a_pair(subject: Subject) -> None:
    """Loss and margin are (P,) float64; the margin is detached."""
    out, _ = _tried(subject, **_drawn())
    for name, value in (("loss", out.loss), ("margin", out.margin)):
        assert value.shape == (6,), f"{name} must be (P,) = (6,), got {tuple(value.shape)}"
        assert value.dtype == torch.float64, f"{name} is {value.dtype} for float64 log-probs"
    assert not out.margin.requires_grad, "margin is not detached"


def declares_what_it_reads(subject: Subject) -> None:
    """Without `ref_logprobs` among its `needs`, the loss reads no reference."""
    needs = subject.component.params.needs
    assert needs <= {"ref_logprobs"}, f"needs names {sorted(needs)}; known: ref_logprobs"
    try:
        _tried(subject, **_drawn())
    except Exception as error:
        raise AssertionError(
            f"given only what needs = {sorted(needs)} declares, the loss raises {error!r}"
        ) from error


def is_finite(subject: Subject) -> None:
    """No infinity or NaN in loss or gradient, however sure the policy is of either response."""
    for chosen, rejected in ((-1e-12, -900.0), (-900.0, -1e-12), (0.0, -5.0), (-5.0, 0.0)):
        values = _drawn()
        values["chosen"] = torch.full((6,), chosen, dtype=torch.float64)
        values["rejected"] = torch.full((6,), rejected, dtype=torch.float64)
        out, grads = _tried(subject, **values)
        for what, tensor in (("loss", out.loss), ("margin", out.margin), ("gradient", grads)):
            assert bool(tensor.isfinite().all()), (
                f"{what} is not finite where log π is {chosen:g} for the preferred response and "
                f"{rejected:g} for the other"
            )


def prefers_the_chosen_response(subject: Subject) -> None:
    """At equal log-probs, minimising raises the preferred response over the other."""
    values = _drawn()
    values |= {"rejected": values["chosen"], "rejected_tokens": values["chosen_tokens"]}
    values |= {"ref_chosen": values["chosen"], "ref_rejected": values["chosen"]}
    _, grads = _tried(subject, **values)
    assert bool((grads[0] < grads[1]).all()), (
        "a gradient step raises the rejected response as much as the chosen one, or more"
    )


def has_a_margin_that_ranks(subject: Subject) -> None:
    """The margin grows with log π of the preferred response and falls with the other's."""
    values = _drawn()
    before, _ = _tried(subject, **values)
    for name, sign in (("chosen", 1), ("rejected", -1)):
        after, _ = _tried(subject, **{**values, name: values[name] + 0.5})
        assert bool((sign * (after.margin - before.margin) > 0).all()), (
            f"half a nat more for the {name} response moves the margin the wrong way"
        )


def keeps_pairs_independent(subject: Subject) -> None:
    """A pair's loss and gradient are the same alone as in any step."""
    values = _drawn()
    whole, grads = _tried(subject, **values)
    for i in range(6):
        alone, own = _tried(subject, **{name: v[i : i + 1] for name, v in values.items()})
        for what, a, b in (
            ("loss", alone.loss, whole.loss[i : i + 1]),
            ("margin", alone.margin, whole.margin[i : i + 1]),
            ("gradient", own, grads[:, i : i + 1]),
        ):
            assert torch.allclose(a, b, rtol=0, atol=1e-12), (
                f"the {what} of pair {i} is {a.tolist()} alone and {b.tolist()} among six"
            )


def _drawn() -> dict[str, Tensor]:
    """Return six pairs with log-probs of about a nat a token."""
    generator = torch.Generator().manual_seed(0)

    def nats() -> Tensor:
        return -5 * torch.rand(6, generator=generator, dtype=torch.float64) - 1

    tokens = torch.tensor([[3, 1, 6, 2, 5, 4], [2, 2, 7, 1, 3, 9]], dtype=torch.float64)
    names = ("chosen", "rejected", *REFERENCE)
    return {**{name: nats() for name in names}, "chosen_tokens": tokens[0],
            "rejected_tokens": tokens[1]}  # fmt: skip


def _tried(subject: Subject, **values: Tensor) -> tuple[PreferenceOutput, Tensor]:
    """Return the loss's result for the pairs, and its gradient (2, P): chosen, rejected."""
    if "ref_logprobs" not in subject.component.params.needs:
        values = {name: v for name, v in values.items() if name not in REFERENCE}
    given: dict[str, Any] = {name: v.clone() for name, v in values.items()}
    leaves = [given[name].requires_grad_() for name in ("chosen", "rejected")]
    pairs = PreferencePairs(**given)
    out: PreferenceOutput = subject.build()(pairs)
    assert out.loss.requires_grad, "no gradient reaches the log-probs; was a detached copy used?"
    for field in fields(pairs):
        now, then = getattr(pairs, field.name), values.get(field.name)
        assert then is None or torch.equal(now, then), f"the loss changes {field.name} in place"
    return out, torch.stack(torch.autograd.grad(out.loss.sum(), leaves))


CHECKS: tuple[Check, ...] = (
    returns_a_number_a_pair,
    declares_what_it_reads,
    is_finite,
    prefers_the_chosen_response,
    has_a_margin_that_ranks,
    keeps_pairs_independent,
)
