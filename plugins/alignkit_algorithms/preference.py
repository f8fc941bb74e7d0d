"""Losses of pairs: from log π of whole responses to a loss and a margin per pair.

Notation: w is the preferred response, l the other, |y| the number of tokens in y, P the number of
pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from alignkit.protocols import PreferenceOutput, PreferencePairs


def dpo(pairs: PreferencePairs, beta: float) -> PreferenceOutput:
    """Return -log σ(m), m = β [log πθ/πref (w) - log πθ/πref (l)]: (P,) each.

    Rafailov et al. 2023, arXiv:2305.18290 eq. 7.
    """
    margin = beta * log_ratios(pairs)
    return PreferenceOutput(loss=_neg_log_sigmoid(margin), margin=margin.detach())


def ipo(pairs: PreferencePairs, tau: float) -> PreferenceOutput:
    """Return (h - 1 / (2 τ))², h = log πθ/πref (w) - log πθ/πref (l): (P,) each.

    Azar et al. 2023, arXiv:2310.12036 eq. 17. The margin is τ h, 1/2 where the loss is 0.
    """
    h = log_ratios(pairs)
    return PreferenceOutput(loss=(h - 1 / (2 * tau)) ** 2, margin=tau * h.detach())


def simpo(pairs: PreferencePairs, beta: float, gamma: float) -> PreferenceOutput:
    """Return -log σ(m - γ), m = β [log πθ(w) / |w| - log πθ(l) / |l|]: (P,) each.

    Meng et al. 2024, arXiv:2405.14734 eq. 6; there is no reference. The margin is m.
    """
    chosen, rejected = per_token(pairs)
    margin = beta * (chosen - rejected)
    return PreferenceOutput(loss=_neg_log_sigmoid(margin - gamma), margin=margin.detach())


def orpo(pairs: PreferencePairs, weight: float) -> PreferenceOutput:
    """Return -log p(w) - λ log σ(m), m = log odds(w) - log odds(l): (P,) each.

    log p(y) = log πθ(y) / |y| and odds = p / (1 - p). Hong et al. 2024, arXiv:2403.07691
    eqs. 6 and 7; there is no reference, since the first term is that of fine-tuning.
    """
    chosen, rejected = per_token(pairs)
    margin = _log_odds(chosen) - _log_odds(rejected)
    loss = -chosen + weight * _neg_log_sigmoid(margin)
    return PreferenceOutput(loss=loss, margin=margin.detach())


def kto(
    pairs: PreferencePairs, *, beta: float, desirable: float, undesirable: float
) -> PreferenceOutput:
    """λ_D (1 - σ(β (r_w - z_l))) + λ_U (1 - σ(β (z_w - r_l))), r = log πθ/πref.

    Ethayarajh et al. 2024, arXiv:2402.01306 eqs. 7 and 8, for responses that come in pairs. The
    paper estimates the reference point z0, a KL divergence that is at least 0, from responses to
    other prompts; here z_w and z_l are the means of r over the preferred and over the other
    responses of the step, as in the authors' first code for pairs. No gradient goes through them.
    """
    r_w, r_l = log_ratios_each(pairs)
    z_w, z_l = (r.detach().mean().clamp(min=0) for r in (r_w, r_l))
    loss = desirable * torch.sigmoid(-beta * (r_w - z_l))
    loss = loss + undesirable * torch.sigmoid(-beta * (z_w - r_l))
    return PreferenceOutput(loss=loss, margin=(beta * (r_w - r_l)).detach())


def log_ratios_each(pairs: PreferencePairs) -> tuple[Tensor, Tensor]:
    """Return log πθ/πref of w and of l, (P,) each; ValueError without a reference."""
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        raise ValueError("this loss reads ref_logprobs, which the algorithm did not provide")
    return pairs.chosen - pairs.ref_chosen, pairs.rejected - pairs.ref_rejected


def log_ratios(pairs: PreferencePairs) -> Tensor:
    """Return log πθ/πref (w) - log πθ/πref (l), (P,); ValueError without a reference."""
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        raise ValueError("this loss reads ref_logprobs, which the algorithm did not provide")
    return (pairs.chosen - pairs.rejected) - (pairs.ref_chosen - pairs.ref_rejected)


def per_token(pairs: PreferencePairs) -> tuple[Tensor, Tensor]:
    """Return log πθ per token of the preferred and the other responses, (P,) each."""
    return pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens


def _log_odds(logp: Tensor) -> Tensor:
    """Return log p - log(1 - p) of log p, (P,); p = 1 counts as the next smaller double."""
    below = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return below - torch.log(-torch.expm1(below))


def _neg_log_sigmoid(x: Tensor) -> Tensor:
    result: Tensor = _NegLogSigmoid.apply(x)  # type: ignore[no-untyped-call]
    return result


class _NegLogSigmoid(torch.autograd.Function):
    """-log σ(x), with -σ(-x) itself as its derivative however large x is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.softplus(-x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -grad * torch.sigmoid(-x)
