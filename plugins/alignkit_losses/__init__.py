"""Built-in policy-gradient losses; formulas are in ``ops`` and in the modules named after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossInputs, LossOutput, LossType


class _Ratio(Params[LossType]):
    """A loss that multiplies the importance ratio π / π_old by the advantage."""

    needs: ClassVar[frozenset[str]] = frozenset({"old_logprobs"})
    zero_without_advantage: ClassVar[bool] = True


class GrpoClip(_Ratio):
    """Clipped importance ratio times the advantage (GRPO, arXiv:2402.03300 eq. 3, without KL)."""

    cliprange: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped to [1 - cliprange, 1 + cliprange]; from 1 on, only the upper bound
    matters. Dimensionless."""

    def build(self) -> LossType:
        from alignkit_losses.ops import grpo_clip, require

        def loss(x: LossInputs) -> LossOutput:
            old = require(x.old_logprobs, "old_logprobs")
            return grpo_clip(x.logprobs, old, x.advantages, self.cliprange)

        return loss


class NoClip(_Ratio):
    """Importance ratio times the advantage, never clipped (GRPO's eq. 3 without the minimum)."""

    def build(self) -> LossType:
        from alignkit_losses.ops import no_clip, require

        def loss(x: LossInputs) -> LossOutput:
            return no_clip(x.logprobs, require(x.old_logprobs, "old_logprobs"), x.advantages)

        return loss


class Gspo(_Ratio):
    """Clipped importance ratio of the whole response, averaged per token (GSPO, arXiv:2507.18071).

    Meant for the normalizer ``masked_mean``, which gives every response the same weight.
    """

    cliprange: Annotated[float, Field(gt=0)] = 4e-4
    """The ratio is clipped to [1 - cliprange, 1 + cliprange]; from 1 on, only the upper bound
    matters. Dimensionless."""

    def build(self) -> LossType:
        from alignkit_losses.gspo import gspo
        from alignkit_losses.ops import require

        def loss(x: LossInputs) -> LossOutput:
            old = require(x.old_logprobs, "old_logprobs")
            return gspo(x.logprobs, old, x.advantages, x.mask, self.cliprange)

        return loss


class Reinforce(Params[LossType]):
    """Advantage times log-probability, on-policy (REINFORCE; Williams 1992)."""

    zero_without_advantage: ClassVar[bool] = True

    def build(self) -> LossType:
        from alignkit_losses.ops import reinforce

        def loss(x: LossInputs) -> LossOutput:
            return reinforce(x.logprobs, x.advantages)

        return loss


class DapoClip(_Ratio):
    """Clipped importance ratio with a higher upper bound (DAPO, arXiv:2503.14476 eq. 8).

    The extra room above lets the probability of unlikely tokens grow, and keeps entropy up.
    """

    eps_low: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped from below at 1 - eps_low; from 1 on, this bound has no effect.
    Dimensionless."""

    eps_high: Annotated[float, Field(gt=0)] = 0.28
    """The ratio is clipped from above at 1 + eps_high. Dimensionless."""

    def build(self) -> LossType:
        from alignkit_losses.dapo_clip import dapo_clip
        from alignkit_losses.ops import require

        def loss(x: LossInputs) -> LossOutput:
            old = require(x.old_logprobs, "old_logprobs")
            return dapo_clip(x.logprobs, old, x.advantages, self.eps_low, self.eps_high)

        return loss


class DualClip(_Ratio):
    """Clipped importance ratio, bounded for negative advantages too (arXiv:1912.09729)."""

    cliprange: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped to [1 - cliprange, 1 + cliprange]; from 1 on, only the upper bound
    matters. Dimensionless."""

    c: Annotated[float, Field(gt=1)] = 3.0
    """With a negative advantage A the loss is at most -c A: a ratio above c gives no gradient.
    Dimensionless."""

    def build(self) -> LossType:
        from alignkit_losses.dual_clip import dual_clip
        from alignkit_losses.ops import require

        def loss(x: LossInputs) -> LossOutput:
            old = require(x.old_logprobs, "old_logprobs")
            return dual_clip(x.logprobs, old, x.advantages, self.cliprange, self.c)

        return loss


class CispoClip(_Ratio):
    """REINFORCE weighted by a clipped importance ratio without gradient (arXiv:2506.13585 eq. 4).

    CISPO, meant for the normalizer ``token_mean``. Every token keeps its gradient.
    """

    eps_low: Annotated[float, Field(gt=0)] = 1.0
    """The weight is at least 1 - eps_low; from 1 on, there is no lower bound. Dimensionless."""

    eps_high: Annotated[float, Field(gt=0)] = 4.0
    """The weight is at most 1 + eps_high. Dimensionless."""

    def build(self) -> LossType:
        from alignkit_losses.cispo_clip import cispo_clip
        from alignkit_losses.ops import require

        def loss(x: LossInputs) -> LossOutput:
            old = require(x.old_logprobs, "old_logprobs")
            return cispo_clip(x.logprobs, old, x.advantages, self.eps_low, self.eps_high)

        return loss


@hookimpl
def loss_type() -> Iterator[Component[LossType]]:
    """Offer the built-in losses."""
    yield Component("grpo_clip", GrpoClip)
    yield Component("no_clip", NoClip)
    yield Component("gspo", Gspo)
    yield Component("reinforce", Reinforce)
    yield Component("dapo_clip", DapoClip)
    yield Component("dual_clip", DualClip)
    yield Component("cispo_clip", CispoClip)
