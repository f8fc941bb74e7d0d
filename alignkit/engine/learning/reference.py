"""A frozen reference policy, and the penalties that keep a policy close to it.

Shapes: B = responses, T = tokens of the longest. d = log πθ - log πref at the sampled token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.engine.forward.frozen import FrozenPolicy
from alignkit.engine.forward.remote import Scores
from alignkit.engine.learning.reference_table import Estimator, Reference
from alignkit.errors import AlignkitError
from alignkit.protocols import LossInputs, LossOutput, LossType, Policy


def freeze(reference: Reference, policy: Policy, temperature: float) -> FrozenPolicy | Scores:
    """Return the reference policy; AlignkitError if it does not share the policy's tokens.

    ``temperature`` is what the policy's responses are sampled at.
    """
    if reference.policy is None:
        return FrozenPolicy.of(policy, copied=True, offload=reference.offload)
    if isinstance(reference.policy, Scores):
        reference.policy.meet(policy, temperature=temperature)
        return reference.policy
    check_vocabularies(reference.policy, policy)
    return FrozenPolicy.of(reference.policy, copied=False, offload=reference.offload)


def check_vocabularies(reference: Policy, policy: Policy) -> None:
    """Raise AlignkitError unless both policies read text as the same token ids."""
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise AlignkitError(
            f"the reference {reference.name} and the policy {policy.name} have different "
            f"vocabularies, so their log-probs cannot be compared; take a reference of the same "
            f"model family"
        )


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator) -> Tensor:
    """Return the per-token estimate of KL(πθ ‖ πref), of the inputs' shape.

    k1 = d, k2 = d²/2, k3 = exp(-d) - 1 + d; Schulman, http://joschu.net/blog/kl-approx.html.
    """
    d = logprobs - ref_logprobs
    if estimator == "k1":
        return d
    return d.square() / 2 if estimator == "k2" else torch.expm1(-d) + d


def penalised(loss: LossType, beta: float, estimator: Estimator) -> LossType:
    """Return ``loss`` plus ``beta`` times the k2 or k3 estimate per token, logged as ``kl``.

    With k1 the loss is left as it is, since its penalty belongs in the reward; the divergence
    is logged all the same.
    """

    def with_kl(x: LossInputs) -> LossOutput:
        if x.ref_logprobs is None:
            raise ValueError("the KL penalty needs ref_logprobs")
        output = loss(x)
        kl = kl_estimate(x.logprobs, x.ref_logprobs, estimator)  # (B, T)
        per_token = output.per_token if estimator == "k1" else output.per_token + beta * kl
        return LossOutput(per_token=per_token, metrics={**output.metrics, "kl": kl.detach()})

    return with_kl
