"""A policy as rollouts see it when they need weights of their own.

Usually rollouts read the live weights. Where these cannot be sampled from as they are (an
adapter is merged first) or change while responses are being sampled, there is a copy, made anew
at each sync.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from alignkit.protocols import Policy


class Served:
    """The weights of ``policy`` at the last :meth:`take`; everything else is the policy's."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        adapter = getattr(policy, "adapter", None)
        self.model: nn.Module = adapter.merged_model() if adapter else copied(policy.model)
        self.version = policy.version

    @torch.no_grad()
    def take(self) -> None:
        """Copy the policy's present weights."""
        adapter = getattr(self.policy, "adapter", None)
        source = adapter.merged() if adapter else self.policy.model.state_dict().items()
        own = self.model.state_dict()
        for name, value in source:
            own[name].copy_(value)
        self.version = self.policy.version

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.policy.tokenizer

    @property
    def eos_ids(self) -> frozenset[int]:
        return self.policy.eos_ids

    @property
    def pad_id(self) -> int:
        return self.policy.pad_id

    @property
    def max_length(self) -> int:
        return self.policy.max_length

    def autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.policy.autocast()
        return context

    def save(self, folder: Path) -> None:
        """Save the policy: what a run leaves is what it trained."""
        self.policy.save(folder)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy with weights of its own, for sampling only."""
    return copy.deepcopy(model).requires_grad_(False).eval()
