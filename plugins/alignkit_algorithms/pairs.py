"""The recipe tables of the built-in preference losses; the formulas are in ``preference``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from alignkit import Params
from alignkit.protocols import PreferenceLoss


class DpoLoss(Params[PreferenceLoss]):
    """Logistic loss of the margin over a reference (DPO, arXiv:2305.18290 eq. 7)."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: how firmly the policy is held to the reference; the smaller, the freer. Dimensionless."""

    def build(self) -> PreferenceLoss:
        from alignkit_algorithms.preference import dpo

        return partial(dpo, beta=self.beta)


class IpoLoss(Params[PreferenceLoss]):
    """Squared distance of the margin from a target (IPO, arXiv:2310.12036 eq. 17).

    Unlike DPO's, it stops pushing once a pair is ranked by the target.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    tau: Annotated[float, Field(gt=0)] = 0.1
    """τ: how firmly the policy is held to the reference; the target is 1 / (2 τ) nats."""

    def build(self) -> PreferenceLoss:
        from alignkit_algorithms.preference import ipo

        return partial(ipo, tau=self.tau)


class SimpoLoss(Params[PreferenceLoss]):
    """Logistic loss of log-probs per token, without a reference (SimPO, arXiv:2405.14734 eq. 6)."""

    beta: Annotated[float, Field(gt=0)] = 2.0
    """β: scale of the difference of log-probs per token. Dimensionless."""

    gamma: Annotated[float, Field(ge=0)] = 1.0
    """γ: the margin by which the preferred response should lead, in units of β × nats per token."""

    def build(self) -> PreferenceLoss:
        from alignkit_algorithms.preference import simpo

        return partial(simpo, beta=self.beta, gamma=self.gamma)


class OrpoLoss(Params[PreferenceLoss]):
    """Fine-tuning plus a logistic loss of the odds ratio (ORPO, arXiv:2403.07691 eq. 6).

    There is no reference: the policy learns the preferred responses and the preference at once.
    """

    weight: Annotated[float, Field(ge=0)] = 0.1
    """λ: weight of the odds-ratio loss relative to the fine-tuning loss. Dimensionless."""

    def build(self) -> PreferenceLoss:
        from alignkit_algorithms.preference import orpo

        return partial(orpo, weight=self.weight)


class KtoLoss(Params[PreferenceLoss]):
    """Each response for itself against a reference point (KTO, arXiv:2402.01306 eqs. 7 and 8).

    The reference point is estimated from the step's own pairs, so use batches of some size.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})

    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: how firmly the policy is held to the reference; the smaller, the freer. Dimensionless."""

    desirable: Annotated[float, Field(ge=0)] = 1.0
    """λ_D: weight of the preferred responses. Dimensionless."""

    undesirable: Annotated[float, Field(ge=0)] = 1.0
    """λ_U: weight of the other responses. Dimensionless."""

    def build(self) -> PreferenceLoss:
        from alignkit_algorithms.preference import kto

        return partial(kto, beta=self.beta, desirable=self.desirable, undesirable=self.undesirable)
