"""Built-in normalizers; the formulas are in ``ops``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.protocols import Normalizer


class MaskedMean(Params[Normalizer]):
    """Mean over each response's tokens, then over responses (GRPO, arXiv:2402.03300 eq. 3)."""

    def build(self) -> Normalizer:
        from alignkit_normalizers.ops import masked_mean

        return masked_mean


class MaskedNormalize(Params[Normalizer]):
    """Sum over each response's tokens / constant, then mean over responses (Dr. GRPO)."""

    constant: Annotated[float, Field(gt=0)] = 1.0
    """Divides every response's sum, in tokens; usually the longest response allowed."""

    def build(self) -> Normalizer:
        from alignkit_normalizers.ops import masked_normalize

        return partial(masked_normalize, constant=self.constant)


class TokenMean(Params[Normalizer]):
    """Mean over all response tokens of the optimizer step (DAPO, arXiv:2503.14476 eq. 8)."""

    def build(self) -> Normalizer:
        from alignkit_normalizers.ops import token_mean

        return token_mean


@hookimpl
def normalizer() -> Iterator[Component[Normalizer]]:
    """Offer the built-in normalizers."""
    yield Component("masked_mean", MaskedMean)
    yield Component("masked_normalize", MaskedNormalize)
    yield Component("token_mean", TokenMean)
