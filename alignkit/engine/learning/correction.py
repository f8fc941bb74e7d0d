"""Measure and correct the numerical difference between trainer and rollout backend.

Responses are drawn from π_rollout (the backend's kernels and precision, perhaps weights a few
updates old), while losses treat them as draws from π_old (the trainer's own log-probs). Shapes: B =
responses, T = tokens of the longest; r = π_old / π_rollout at the sampled token.
"""

from __future__ import annotations

from alignkit.protocols import LossInputs, LossOutput, LossType


def with_gap(loss: LossType) -> LossType:
    """Return ``loss``, also logging how far trainer and rollout backend disagree.

    ``rollout_logprob_gap`` is the mean of |log r| in nats per token: about 0 where both compute
    the same distribution, more with other precision or kernels, and more still where top_p,
    top_k or min_p cut the distribution that was sampled from. A jump means the two no longer hold
    the same weights. ``rollout_kl`` is the mean of r - 1 - log r, which estimates
    KL(π_rollout ‖ π_old) per token without bias and is never negative
    (Schulman 2020, "Approximating KL divergence", k3). Equal log-probs give exactly 0; the ``hf``
    backend computes a token at a time, whose sums round otherwise than the trainer's: about 1e-13.
    """

    def monitored(x: LossInputs) -> LossOutput:
        output = loss(x)
        if x.old_logprobs is None or x.rollout_logprobs is None:
            return output
        log_ratio = x.old_logprobs - x.rollout_logprobs  # (B, T)
        metrics = {
            **output.metrics,
            "rollout_logprob_gap": log_ratio.abs(),
            "rollout_kl": log_ratio.expm1() - log_ratio,
        }
        return LossOutput(per_token=output.per_token, metrics=metrics)

    return monitored


def truncated_importance(loss: LossType, cap: float) -> LossType:
    """Return ``loss`` with each token weighted by min(r, ``cap``), which carries no gradient.

    Truncated importance sampling (Ionides 2008; for rollout engines Yao et al. 2025, "Your
    efficient RL framework secretly brings you off-policy RL training"). Unbiased up to the cap
    only where π_rollout can draw all that π_old can: not after top_p, top_k or min_p. Logs
    ``importance_weight``, and ``importance_capped``, the share of tokens at the cap.
    """

    def weighted(x: LossInputs) -> LossOutput:
        if x.old_logprobs is None or x.rollout_logprobs is None:
            raise ValueError("truncated importance sampling needs old and rollout log-probs")
        output = loss(x)
        ratio = (x.old_logprobs - x.rollout_logprobs).exp()  # (B, T)
        weight = ratio.clamp(max=cap).detach()
        metrics = {
            **output.metrics,
            "importance_weight": weight,
            "importance_capped": (ratio > cap).to(weight.dtype),
        }
        return LossOutput(per_token=weight * output.per_token, metrics=metrics)

    return weighted
