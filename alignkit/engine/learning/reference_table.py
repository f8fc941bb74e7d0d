"""The ``[reference]`` table: staying close to a frozen policy. Imports no torch.

An algorithm takes it by a keyword-only argument of its ``build``::

    reference: Annotated[Reference, ReferenceTable] | None = None
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit.abilities import only_scores
from alignkit.component import Params
from alignkit.footprint import REFERENCE, ModelSizes, Workload
from alignkit.protocols import Policy

Estimator = Literal["k1", "k2", "k3"]

NOT_TRAINED = (
    "is a server that only gives log-probs, and what is trained has to be in this process; such "
    "a policy can be [teacher], or the reference of GRPO or DPO"
)
"""Why a policy with ``only_scores`` cannot be ``[policy]``."""


@dataclass(frozen=True, slots=True)
class Reference:
    """How strongly, and by which estimator, a policy is kept close to which reference."""

    beta: float
    estimator: Estimator
    policy: Policy | None
    """None = the trained policy before its first step."""
    offload: bool = False
    """Whether its weights are kept in CPU memory while not in use."""


class ReferenceTable(Params[Reference]):
    """Penalise the KL divergence from a frozen reference policy.

    The estimators are Schulman's (http://joschu.net/blog/kl-approx.html), with
    d = log πθ - log πref at a sampled token:

    - ``k3`` = exp(-d) - 1 + d, a loss term per token; GRPO's choice (arXiv:2402.03300, eq. 4).
    - ``k2`` = d²/2, a loss term per token; on-policy its gradient is that of KL(πθ ‖ πref).
    - ``k1`` = d, taken off the reward (summed over the response), as in RLHF by PPO; as a loss
      term its gradient would be zero on average, so it would hold nothing back.

    The sub-table ``[reference.policy]`` names the reference; without it, it is the policy as it
    is before the first step.
    """

    beta: Annotated[float, Field(ge=0)] = 0.04
    """Weight of the penalty, in units of the loss (k2, k3) or of the reward (k1). 0 only
    provides the reference's log-probs to losses that read them, and logs the divergence."""

    estimator: Estimator = "k3"
    """Which estimator; see above."""

    offload: bool = False
    """Keep the reference's weights in the CPU's memory and bring them to the device only while
    its log-probs are computed, once a step. No effect on CPUs, nor where the reference takes no
    memory here: the policy without its adapter, or a server."""

    def build(self, *, policy: Policy | None = None) -> Reference:
        return Reference(self.beta, self.estimator, policy, self.offload)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        which = "[reference.policy]" if "policy" in tables else "the policy before step 1"
        return {"reference": f"{which}, {self.beta} × {self.estimator}"}

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count the weights of a second model, unless it is below an adapter or behind a server."""
        own = tables.get("policy")
        none = sizes.adapted if own is None else only_scores(own)
        return {} if none else {REFERENCE: sizes.parameters * sizes.number}
