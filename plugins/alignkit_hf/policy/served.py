"""A policy as rollouts see it when they need weights of their own.

Usually rollouts read the live weights. Where these cannot be sampled from as they are (an
adapter is merged first) or change while responses are being sampled, there is a copy, made anew
at each sync.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from alignkit.engine.forward.frozen import PolicyView, frozen_copy
from alignkit.engine.ranks.shards import shards_of, whole_of
from alignkit_hf.policy.twins import adapted, adapted_twin, not_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from alignkit.protocols import Policy


class Served(PolicyView):
    """The weights of a policy at the last :meth:`take`; everything else is the policy's."""

    def __init__(self, policy: Policy) -> None:
        whole = whole_of(policy.model)
        if whole is policy.model:
            base, weights = adapted(policy)
            whole = frozen_copy(whole) if base is None else adapted_twin(base, weights)
        super().__init__(policy, whole, policy.version)

    @torch.no_grad()
    def take(self) -> None:
        """Copy the policy's present weights."""
        self.version = self.original.version
        if shards := shards_of(self.original.model):
            shards.gather()
            return
        base, weights = adapted(self.original)
        self._copy(weights if base is None else not_of(base, weights))

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take over these weights instead, of that version."""
        self._copy(weights.items())
        self.version = version

    @torch.no_grad()
    def _copy(self, source: Iterable[tuple[str, Tensor]]) -> None:
        own = self.model.state_dict()
        for name, value in source:
            own[name].copy_(value)
